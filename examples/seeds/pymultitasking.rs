//! PyMultiTasking: `Pool`. Its decorators are in `decorators.rs`.

use std::error::Error;
use std::time::Duration;

// from PyMultiTasking import ThreadPool as Pool
use inparallel::{Options, Pool, as_completed, task};

use crate::decorators;

// def test(*args, **kwargs):
//     print(f'{args} - {kwargs}')
#[task]
pub(crate) fn test(arg: &str, example: &str) -> usize {
    println!("{arg} - example: {example}");
    arg.len()
}

pub(crate) fn run(_: Vec<String>) -> Result<(), Box<dyn Error>> {
    submit()?;
    partial()?;
    map()?;
    wait_completion()?;
    completed()?;
    decorators::run()
}

fn submit() -> Result<(), Box<dyn Error>> {
    // p1 = Pool()
    // task = p1.submit(test, "arg", example="kwargs")
    let p1 = Pool::new()?;
    let task = p1.submit(test::later("arg", "kwargs"))?;
    println!("{}", task.wait()?);

    // task = p1.submit(test, "arg", example="kwargs", submit_task_priority=100)
    // As in the original smaller numbers are first; the default is 0 here, and 10 there.
    let patient = Options::new().priority(100);
    let mut task = p1.submit(test::later("arg", "kwargs").with(patient))?;
    // if task.wait(10):
    //     print(task.results)
    // else:
    //     print(f"{task} not finished")
    match task.wait_timeout(Duration::from_secs(10))? {
        Some(results) => println!("{results}"),
        None => println!("{task:?} not finished"),
    }
    Ok(())
}

fn partial() -> Result<(), Box<dyn Error>> {
    // func = partial(test, "arg", example="kwargs")
    // p1 = Pool()
    // p1.submit(func)
    let func = test::later("arg", "kwargs");
    let p1 = Pool::new()?;
    p1.submit(func.clone())?.wait()?;
    // With additional arguments: a closure.
    let func = |arg: &str| test::later(arg, "kwargs");
    p1.submit(func("later"))?.wait()?;
    Ok(())
}

fn map() -> Result<(), Box<dyn Error>> {
    // arg1 = (("arg",), {"example": "kwargs"})
    // arg2 = (("arg2",), {"example2": "kwargs"})
    let arg1 = ("arg", "kwargs");
    let arg2 = ("arg2", "kwargs2");
    // p1 = Pool()
    // tasks = p1.map(test, [arg1, arg2])
    let p1 = Pool::new()?;
    for result in p1.map(|(arg, example)| test::later(arg, example), [arg1, arg2]) {
        println!("{}", result?);
    }
    Ok(())
}

fn wait_completion() -> Result<(), Box<dyn Error>> {
    // p1 = Pool()
    // p1.map(test, [arg1, arg2])
    let p1 = Pool::new()?;
    for (arg, example) in [("arg", "kwargs"), ("arg2", "kwargs")] {
        p1.submit(test::later(arg, example))?.detach();
    }
    // if p1.wait_completion(10, block=True):
    //     print("The pool is finished work its current work load")
    if let Some(_block) = p1.wait_idle(Duration::from_secs(10)) {
        println!("The pool is finished with its current work load");
    }
    Ok(())
}

fn completed() -> Result<(), Box<dyn Error>> {
    // p1 = Pool()
    // tasks = p1.map(test, [arg1, arg2])
    let p1 = Pool::new()?;
    let arg1 = test::later("arg", "kwargs");
    let arg2 = test::later("arg2", "kwargs");
    let tasks = [p1.submit(arg1)?, p1.submit(arg2)?];
    // for task in Pool.as_completed(tasks):
    //     print(f"Task[{task}] completed with results: {task.results}")
    for task in as_completed(tasks) {
        println!("Task[{:?}] completed with results: {}", task.id(), task.wait()?);
    }
    Ok(())
}
