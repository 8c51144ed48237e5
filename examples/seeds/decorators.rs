//! PyMultiTasking: `Threaded`, `Processed` and `Limiter`.

use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

// from PyMultiTasking import Limiter, Processed, ThreadPool as Pool
use inparallel::{Pool, TaskFuture, as_completed, limit, processed};

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    bare()?;
    daemon()?;
    pool()?;
    pool_name()?;
    callback_func()?;
    combined()?;
    limiter()
}

// @Processed
// def test(*args, **kwargs):
#[processed]
fn test(args: Vec<u32>) -> usize {
    println!("test: {args:?}");
    args.len()
}

fn bare() -> Result<(), Box<dyn Error>> {
    // task = test()
    // if task.wait(10):
    //     print(task.results)
    // else:
    //     print(f"{task} not finished")
    let mut task = test(vec![1, 2]);
    match task.wait_timeout(Duration::from_secs(10))? {
        Some(results) => println!("{results}"),
        None => println!("{task:?} not finished"),
    }
    let is_here = test_threaded(vec![3]).wait()? == std::process::id();
    println!("a thread of this process: {is_here}");
    Ok(())
}

// @Threaded
// def test(*args, **kwargs):
#[processed(start = "thread")]
fn test_threaded(args: Vec<u32>) -> u32 {
    println!("test_threaded: {args:?}");
    std::process::id()
}

// @Processed(daemon=True)
#[processed(daemon)]
fn test_daemon(_: u32) -> u32 {
    std::process::id()
}

fn daemon() -> Result<(), Box<dyn Error>> {
    let (first, second) = (test_daemon(1).wait()?, test_daemon(2).wait()?);
    println!("the same worker: {}", first == second);
    Ok(())
}

// @Processed(pool=True)
#[processed(pool)]
fn test_pool(number: u32) {
    println!("test_pool: {number}");
}

fn pool() -> Result<(), Box<dyn Error>> {
    test_pool(1).detach();
    // Pool.join_pools(timeout=60)
    println!("joined: {}", Pool::join_all(Duration::from_secs(60)));
    Ok(())
}

// @Processed(pool_name=pool_name)
#[processed(pool = "mypool")]
fn test_dec_pool_by_name_one(number: u32) -> u32 {
    number
}

// @Processed(pool_name=pool_name)
#[processed(pool = "mypool")]
fn test_dec_pool_by_name_two(number: u32) -> u32 {
    10 * number
}

fn pool_name() -> Result<(), Box<dyn Error>> {
    // tasksOne = [test_dec_pool_by_name_one(randomsleep=True) for _ in range(4)]
    // tasksTwo = [test_dec_pool_by_name_two(randomsleep=True) for _ in range(4)]
    let tasks_one: Vec<_> = (0..4).map(test_dec_pool_by_name_one).collect();
    let tasks_two: Vec<_> = (0..4).map(test_dec_pool_by_name_two).collect();
    // pool = Pool.get_pool_by_name(pool_name)
    // pool.wait_completion(block=True)
    let pool = Pool::by_name("mypool").ok_or("the calls have made it")?;
    let block = pool.wait_idle(None);
    // for task in tasksOne + tasksTwo:
    //     print(f"Task[{task}] completed with results: {task.results}")
    for task in tasks_one.into_iter().chain(tasks_two) {
        println!("Task[{}] completed with results: {}", task.name(), task.wait()?);
    }
    drop(block);
    pool.join(None);
    Ok(())
}

// def callback_test(*args, **kwargs):
//     print(f'callback_test - Completed: {args} - {kwargs}')
fn callback_test(result: &inparallel::Result<u32>) {
    println!("callback_test - Completed: {result:?}");
}

// @Processed(callback_func=callback_test)
#[processed(callback = callback_test)]
fn test_callback(number: u32) -> u32 {
    number + 1
}

fn callback_func() -> Result<(), Box<dyn Error>> {
    test_callback(41).wait()?;
    // The callback runs on a thread of its own, once the task has ended.
    inparallel::wait_idle(Duration::from_secs(60));
    Ok(())
}

// store_values = []
static STORE_VALUES: Mutex<Vec<u32>> = Mutex::new(Vec::new());

// @Limiter(1)
// def callback_test(*args, **kwargs):
//     store_values.append(args)
#[limit(1)]
fn store(result: &inparallel::Result<u32>) {
    if let (Ok(value), Ok(mut values)) = (result, STORE_VALUES.lock()) {
        values.push(*value);
    }
}

// @Processed(callback_func=callback_test, pool_name='mypool', _pool_maxWorkers=2, _task_store_return=False)
// def test(*args, **kwargs):
//     return randint(0, 10)
#[processed(callback = store, pool = "twoworkers", workers = 2)]
fn test_combined() -> u32 {
    std::process::id() % 11
}

fn combined() -> Result<(), Box<dyn Error>> {
    // tasks = [test() for _ in range(4)]
    let tasks: Vec<_> = (0..4).map(|_| test_combined()).collect();
    // pool = Pool.get_pool_by_name('mypool')
    // pool.join(block=True)
    let pool = Pool::by_name("twoworkers").ok_or("the calls have made it")?;
    pool.join(None);
    tasks.into_iter().for_each(TaskFuture::detach);
    inparallel::wait_idle(Duration::from_secs(60));
    // print(f"Stored Values: {store_values}")
    println!(
        "Stored Values: {:?}",
        STORE_VALUES.lock().map_err(|_| "poisoned")?
    );
    Ok(())
}

// @Limiter(1)
#[limit(1)]
fn test_one_at_a_time(number: u32) -> u32 {
    number
}

// @Limiter(2, blocking=False)
// @Processed
#[processed(limit = 2)]
fn test_two_at_a_time(number: u32) -> u32 {
    number
}

fn limiter() -> Result<(), Box<dyn Error>> {
    // testResults = [test() for _ in range(4)]
    let test_results: Vec<u32> = (0..4).map(test_one_at_a_time).collect();
    println!("{test_results:?}");
    // tasks = [test() for _ in range(4)]  # would complete quickly
    let tasks: Vec<_> = (0..4).map(test_two_at_a_time).collect();
    // for task in Pool.as_completed(tasks):
    for task in as_completed(tasks) {
        println!("Task[{:?}] completed with results: {}", task.id(), task.wait()?);
    }
    Ok(())
}
