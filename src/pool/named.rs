//! The pools that have a name. A name holds its pool until that is shut down.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::options::{Options, PoolSpec};
use crate::pool::{Pool, builder};
use crate::supervisor::PoolSettings;
use crate::sync::lock;
use crate::sys::{self, Global};

struct Named {
    generation: u64,
    pools: Mutex<Pools>,
}

#[derive(Default)]
struct Pools {
    by_name: BTreeMap<String, Pool>,
    /// Shut down, their names free, and not over when somebody looked last.
    closing: Vec<Pool>,
}

/// A fork starts without pools, and does not touch a lock that a thread which it does not have may hold.
fn named() -> &'static Named {
    let generation = sys::generation();
    match NAMED.get() {
        Some(named) if named.generation == generation => named,
        old => {
            let pools = Mutex::default();
            NAMED.replace(old, Box::new(Named { generation, pools }))
        }
    }
}

static NAMED: Global<Named> = Global::new();

pub(super) fn find(name: &str) -> Option<Pool> {
    lock(&named().pools).by_name.get(name).cloned()
}

pub(super) fn all() -> Vec<Pool> {
    lock(&named().pools).by_name.values().cloned().collect()
}

/// Those that were shut down and may not be over.
pub(super) fn closing() -> Vec<Pool> {
    lock(&named().pools).closing.clone()
}

/// The name is free. The pool's own handle goes without the lock: it may be the last.
pub(super) fn forget(pool: &Pool) {
    let Some(name) = pool.name() else {
        return;
    };
    let mut pools = lock(&named().pools);
    let over: Vec<_> = pools.closing.extract_if(.., |pool| pool.is_over()).collect();
    let is_it = pools
        .by_name
        .get(name)
        .is_some_and(|other| other.core.id == pool.core.id);
    if is_it && let Some(pool) = pools.by_name.remove(name) {
        pools.closing.push(pool);
    }
    drop(pools);
    drop(over);
}

/// The pool with the name of these settings: the one that there is, if it is like that, or a new one.
pub(super) fn make(settings: PoolSettings) -> Result<Pool> {
    let mut pools = lock(&named().pools);
    let name = settings.name.clone().unwrap_or_default();
    if let Some(pool) = pools.by_name.get(&name) {
        return match pool.core.settings.is_like(&settings) {
            true => Ok(pool.clone()),
            false => Err(taken(&name)),
        };
    }
    let pool = builder::make(settings)?;
    pools.by_name.insert(name, pool.clone());
    Ok(pool)
}

/// The pool that an attribute asks for. One that the program has made by hand serves, unless the attribute wants another
/// number of workers.
pub(super) fn of(spec: &'static PoolSpec, options: &Options) -> Result<Pool> {
    let workers = if spec.daemon { Some(1) } else { spec.workers };
    if let Some(pool) = find(spec.name) {
        if pool.is_broken() {
            // What kept it from having workers may be over.
            pool.close();
            return of(spec, options);
        }
        let fits = workers.is_none_or(|workers| workers == pool.core.settings.rules.max_workers);
        return if fits { Ok(pool) } else { Err(taken(spec.name)) };
    }
    let mut builder = Pool::builder().name(spec.name).start(options.method_of_pool());
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    if spec.daemon {
        builder = builder.min_workers(1);
    }
    match builder.build() {
        // Another thread was faster, with the same wish or another.
        Err(_) if find(spec.name).is_some() => of(spec, options),
        built => built,
    }
}

fn taken(name: &str) -> Error {
    Error::invalid(
        "pool name",
        format!("{name:?}"),
        "a pool of this name exists with other settings; give them the same settings or another name",
    )
}
