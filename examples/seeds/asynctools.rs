//! py-asynctools: `Parallel` and `Pool`.

use std::error::Error;

// from asynctools.threading import Parallel, Pool
use inparallel::{Joined, Parallel, Split, task};

use crate::http;

// def request(url):
//     # ... do request
//     return data
#[task]
fn request(url: String) -> Result<String, String> {
    http::get(&url)
}

pub(crate) fn run(links: Vec<String>) -> Result<(), Box<dyn Error>> {
    let links = http::links(links, 12)?;

    // pll = Parallel(request)
    // for url in links:
    //     pll(url)  # Starts a new thread
    let pll = Parallel::new(request::later);
    for url in &links {
        pll.call(url.clone());
    }

    // results, errors = pll.join()
    let Joined { results, errors } = pll.join();
    println!("{} results, {} errors", results.len(), errors.len());
    for (number, page) in results.into_iter().take(3) {
        println!("{}: {:?}", links[number], page?);
    }

    // results, errors = Parallel(request).map(links).join()
    let Joined { results, errors } = Parallel::new(request::later).map(links.clone()).join();
    println!("{} results, {} errors", results.len(), errors.len());

    // pool = Pool(request, 5)
    // for url in links:
    //     pll(url)  # Runs in a pool
    // results, errors = pll.join()
    let pool = Parallel::with_workers(request::later, 5)?;
    for url in &links {
        pool.call(url.clone());
    }
    pool.call("http://127.0.0.1:1/nobody-listens-here".to_owned());
    // What the function said apart from what became of its worker.
    let Split {
        results,
        failures,
        errors,
    } = pool.join().split();
    println!(
        "{} results, {} errors; failed: {failures:?}",
        results.len(),
        errors.len()
    );

    // It is as good for the next ones.
    println!("{} more", pool.map(links).join().results.len());
    pool.close();
    Ok(())
}
