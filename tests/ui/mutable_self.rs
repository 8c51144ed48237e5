use inparallel::task;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Counter(u32);

impl Counter {
    #[task]
    fn increment(&mut self) {
        self.0 += 1;
    }

    #[task]
    fn decrement(self: &mut Self) {
        self.0 -= 1;
    }
}

fn main() {}
