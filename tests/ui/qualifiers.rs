use inparallel::task;

#[task]
async fn asynchronous() {}

#[task]
unsafe fn dangerous() {}

#[task]
extern "C" fn foreign() {}

#[task]
const fn constant() {}

#[task]
const unsafe extern "C" fn all_at_once(text: &mut u8) -> &u8 {
    text
}

fn main() {}
