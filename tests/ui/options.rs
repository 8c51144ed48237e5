use inparallel::task;

#[task(tiemout = "5s")]
fn unknown() {}

#[task(timeout = "5s", start = "fork", timeout = "6s")]
fn duplicate() {}

#[task(start = "inline", timeout = "5s")]
fn contradictory() {}

#[task(start = "frok")]
fn unknown_start_method() {}

#[task(start, associated = true, name, name2)]
fn wrong_form() {}

#[task(name = "")]
fn empty_name() {}

#[task(pool = " ")]
fn empty_pool_name() {}

#[task(pool = 4)]
fn pool_with_a_number() {}

#[task(daemon = "name")]
fn daemon_with_a_name() {}

#[task(discard = false)]
fn discard_with_a_value() {}

#[task(callback)]
fn callback_without_a_path() {}

#[task(callback = |result| drop(result))]
fn callback_of_a_closure() {}

#[task(crate = "not a path")]
fn wrong_path() {}

#[task("5s")]
fn not_an_option() {}

fn main() {
    // What is wrong in the attribute does not keep the task from being one.
    let _ = unknown().wait();
    let _ = duplicate::with().call();
}
