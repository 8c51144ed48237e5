use inparallel::task;

#[task(pool, workers = 0)]
fn no_workers() {}

#[task(pool, workers = -1)]
fn negative_workers() {}

#[task(pool, workers = 4294967296)]
fn many_workers() {}

#[task(pool, workers = 99999999999999999999999999)]
fn very_many_workers() {}

#[task(pool, workers)]
fn workers_without_a_number() {}

#[task(pool, workers = "4")]
fn workers_as_a_text() {}

#[task(pool, workers = 4u8)]
fn workers_with_a_suffix() {}

#[task(pool, workers = 1.5)]
fn half_a_worker() {}

#[task(pool, priority = 2147483648)]
fn high_priority() {}

#[task(pool, priority = -2147483649)]
fn low_priority() {}

#[task(pool, priority = "high")]
fn priority_as_a_text() {}

#[task(retries = -1)]
fn negative_retries() {}

#[task(retries = 4294967296)]
fn many_retries() {}

#[task(retries)]
fn retries_without_a_number() {}

#[task(limit = 0)]
fn nothing_at_all() {}

#[task(limit = -1)]
fn negative_limit() {}

#[task(limit = 4294967296)]
fn no_real_limit() {}

#[task(limit = "3")]
fn limit_as_a_text() {}

#[task(limit)]
fn limit_without_a_number() {}

fn main() {}
