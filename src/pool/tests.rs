use std::sync::Arc;

use serial_test::serial;

use crate::options::{Options, StartMethod};
use crate::pool::{Pool, Shutdown};

/// 1. A pool is shut down. 2. Its handle is dropped, and a number is changed of which nobody will take notice. 3. The
/// supervisor has heard of that, and has nothing of the pool any more.
#[test]
#[serial(supervisor)]
fn pool_that_is_over_is_forgotten() {
    for method in [StartMethod::ForkServer, StartMethod::Thread] {
        let new = || {
            Pool::builder()
                .workers(2)
                .prestart(true)
                .start(method)
                .build()
                .unwrap()
        };
        let pool = new();
        let core = Arc::downgrade(&pool.core);
        assert!(pool.shutdown(Shutdown::Finish, None));
        drop(pool);
        // Commands are done in order, so that after this one everything before is done.
        assert!(new().shutdown(Shutdown::Kill, None));
        assert_eq!(core.strong_count(), 0, "{method}");
    }
}

#[test]
fn wrong_settings_are_named() {
    let check = |builder: crate::PoolBuilder, text: &str| {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    };
    let new = Pool::builder;
    check(new().workers(0), "workers: 0 cannot be used");
    check(new().workers(2).min_workers(3), "min_workers: 3 cannot be used");
    check(new().queue(0), "queue: 0 cannot be used");
    check(
        new().max_tasks_per_worker(0),
        "max_tasks_per_worker: 0 cannot be used",
    );
    check(new().name("  "), "name: \"\" cannot be used");
    check(new().env("A=B", "1"), "env: \"A=B\" cannot be used");
    check(new().env("", "1"), "env: \"\" cannot be used");
    check(
        new().current_dir("/nowhere/at/all"),
        "current_dir: \"/nowhere/at/all\" cannot be used",
    );
    check(new().idle_timeout(std::time::Duration::MAX), "idle_timeout: ");
    check(new().start(StartMethod::Fork), "start: fork cannot be used");
    check(
        new().options(Options::new().start(StartMethod::Inline)),
        "start: inline cannot be used",
    );
    check(
        new().options(Options::new().timeout(std::time::Duration::ZERO)),
        "timeout: 0s cannot be used",
    );
}
