//! py-hydra: several functions that compete for one queue of items.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

// import hydra
use inparallel::{Hydra, task};

use crate::http;

// The task is requests.get.
#[task]
fn get(url: String) -> Result<String, String> {
    http::get(&url)
}

// def _add(number):
//     return number + number
#[task]
fn add(number: u64) -> u64 {
    number + number
}

// def _mult(number):
//     return number * number
#[task]
fn mult(number: u64) -> u64 {
    number * number
}

pub(crate) fn run(links: Vec<String>) -> Result<(), Box<dyn Error>> {
    three_urls(links.clone())?;
    many_urls(links)?;
    two_functions()
}

fn three_urls(links: Vec<String>) -> Result<(), Box<dyn Error>> {
    // url_list = ['https://jsonplaceholder.typicode.com/albums' for x in range(3)]
    let url_list = http::links(links, 3)?;
    // with hydra.Hydra() as fast:
    let fast = Hydra::new()?;
    //     for url in url_list:
    //         fast.add_work(url)
    for url in &url_list {
        fast.add_work(url.clone());
    }
    //     fast.do_work('thread_id_root', requests.get, threads=2)
    fast.do_work("process_id_root", get::later).workers(2)?;
    //     results = fast.get_results(len(url_list))
    let results = fast.get_results(url_list.len());
    for done in results {
        println!("{} of {}: {:?}", done.index, done.head, done.result?);
    }
    Ok(())
}

fn many_urls(links: Vec<String>) -> Result<(), Box<dyn Error>> {
    // url_list = ['https://github.com/Ben-Hatfield', ..., ETC...]
    let url_list = http::links(links, 31_337)?;
    let began = Instant::now();
    // with hydra.Hydra() as bad_idea:
    let not_so_bad = Hydra::new()?;
    //     for url in url_list:
    //         bad_idea.add_work(url)
    for url in &url_list {
        not_so_bad.add_work(url.clone());
    }
    //     bad_idea.do_work(thread_number=31337, task=requests.get, block=True)
    // Four workers that keep their connections are faster than a thread for each.
    not_so_bad.do_work("get", get::later).workers(4)?;
    //     webpages = bad_idea.get_results(len(url_list))
    let webpages = not_so_bad.get_results(url_list.len());
    let here = webpages.iter().filter(|page| matches!(page.result, Ok(Ok(_))));
    println!(
        "{} of {} pages after {:?}",
        here.count(),
        url_list.len(),
        began.elapsed()
    );
    // Not got: which, and why.
    for page in webpages {
        match page.result {
            Ok(Ok(_)) => {}
            Ok(Err(said)) => println!("{said}"),
            Err(error) => println!("{}: {error}", page.item),
        }
    }
    Ok(())
}

fn two_functions() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    // with hydra.Hydra() as math_hydra:
    let math_hydra = Hydra::new()?;
    //     for x in range(2**16):
    //         math_hydra.add_work(x)
    for x in 0..1 << 16 {
        math_hydra.add_work(x);
    }
    //     math_hydra.do_work('adder_thread', task=_add)
    math_hydra.do_work("adder", add::later).workers(1)?;
    //     math_hydra.do_work('multiplier_thread', task=_mult)
    math_hydra.do_work("multiplier", mult::later).workers(1)?;
    //     useless_jumbled_results = math_hydra.get_results(2**16)
    let jumbled_results = math_hydra.get_results(1 << 16);
    // Jumbled still, but each says what it is the result of.
    let mut shares = BTreeMap::new();
    for done in &jumbled_results {
        *shares.entry(done.head.as_str()).or_insert(0) += 1;
    }
    println!(
        "{} results after {:?}: {shares:?}",
        jumbled_results.len(),
        began.elapsed()
    );
    let first = &jumbled_results[0];
    println!("{} by the {}: {:?}", first.item, first.head, first.result);
    Ok(())
}
