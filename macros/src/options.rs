//! What `#[task(..)]` says about the task: which options contradict each other, and what they become at run time.

use std::time::Duration;

use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, ExprPath, LitStr, Path, Token, parse_quote};

use crate::known::Given;
use crate::limit::Permits;
use crate::parse::combine;

/// The options of one `#[task(..)]`.
pub(crate) struct Options {
    pub(crate) associated: bool,
    pub(crate) krate: Path,
    pub(crate) name: Option<LitStr>,
    pub(crate) timeout: Option<Duration>,
    /// A variant of `StartMethod`.
    pub(crate) start: Option<&'static str>,
    pub(crate) pool: Option<Pool>,
    pub(crate) workers: Option<u32>,
    pub(crate) priority: Option<i32>,
    pub(crate) retries: Option<u32>,
    pub(crate) limit: Option<Permits>,
    pub(crate) callback: Option<ExprPath>,
    pub(crate) discard: bool,
}

/// Where the task waits for a worker that is not its own.
pub(crate) enum Pool {
    /// A pool that is named after the task.
    Own,
    Named(LitStr),
    /// One worker that stays.
    Daemon,
}

impl Options {
    /// Reads the attribute. What is wrong is left out of the options, and reported beside them.
    pub(crate) fn read(attribute: TokenStream) -> (Self, Option<Error>) {
        let mut options = Options {
            associated: false,
            krate: parse_quote!(::inparallel),
            name: None,
            timeout: None,
            start: None,
            pool: None,
            workers: None,
            priority: None,
            retries: None,
            limit: None,
            callback: None,
            discard: false,
        };
        let given = match Punctuated::<Given, Token![,]>::parse_terminated.parse2(attribute) {
            Ok(given) => given,
            Err(error) => return (options, Some(error)),
        };
        let mut errors = None;
        for (index, one) in given.iter().enumerate() {
            let result = if given.iter().take(index).any(|earlier| earlier.name == one.name) {
                Err(Error::new(
                    one.name.span(),
                    format!("`{}` is given twice", one.name),
                ))
            } else {
                one.apply(&mut options)
            };
            if let Err(error) = result {
                combine(&mut errors, error);
            }
        }
        let given: Vec<_> = given.into_iter().collect();
        options.check(&given, &mut errors);
        (options, errors)
    }

    /// Refuses options that make no sense together. An option counts as given even if its value is wrong.
    fn check(&self, given: &[Given], errors: &mut Option<Error>) {
        let place_of = |name: &str| {
            let one = given.iter().find(|one| one.name == name);
            one.map(|one| one.name.span())
        };
        let has = |name| place_of(name).is_some();
        let mut refuse = |name, condition, advice: &str| {
            if let (Some(place), true) = (place_of(name), condition) {
                combine(errors, Error::new(place, advice));
            }
        };
        let (is_pool, is_daemon) = (has("pool"), has("daemon"));
        let (is_fork, is_inline) = (self.start == Some("Fork"), self.start == Some("Inline"));

        refuse("timeout", is_inline, TIMEOUT_INLINE);
        refuse("retries", is_fork, RETRIES_FORK);
        refuse("retries", is_inline, RETRIES_INLINE);
        refuse("start", is_fork && (is_pool || is_daemon), FORK_IN_POOL);
        refuse("start", is_inline && (is_pool || is_daemon), INLINE_IN_POOL);
        refuse("daemon", is_pool, DAEMON_IN_POOL);
        refuse("workers", is_daemon && !is_pool, WORKERS_OF_DAEMON);
        refuse("workers", !is_daemon && !is_pool, WORKERS_WITHOUT_POOL);
        refuse("callback", has("discard"), CALLBACK_WITHOUT_RESULT);
    }

    /// An expression for the run-time options that a plain call of the task `function` has.
    ///
    /// It may hold statics: it must stand in one place of the output, so that there is one of each.
    pub(crate) fn defaults(&self, function: &str) -> TokenStream {
        let krate = &self.krate;
        let start = self.start.map(|method| {
            let method = format_ident!("{method}");
            quote!(.start(#krate::StartMethod::#method))
        });
        let timeout = self.timeout.map(|limit| {
            let (secs, nanos) = (limit.as_secs(), limit.subsec_nanos());
            quote!(.timeout(::core::time::Duration::new(#secs, #nanos)))
        });
        let pool = self.pool.as_ref().map(|pool| {
            let (name, is_daemon) = match pool {
                Pool::Named(name) => (quote!(#name), false),
                Pool::Own => (own_name(function), false),
                Pool::Daemon => (own_name(function), true),
            };
            let workers = match self.workers.map(Literal::u32_unsuffixed) {
                Some(workers) => quote!(::core::option::Option::Some(#workers)),
                None => quote!(::core::option::Option::None),
            };
            let spec = quote!(#krate::private::PoolSpec);
            quote! {
                .in_pool({
                    static POOL: #spec = #spec { name: #name, workers: #workers, daemon: #is_daemon };
                    &POOL
                })
            }
        });
        let priority = self.priority.map(|priority| quote!(.priority(#priority)));
        let retries = self.retries.map(|retries| quote!(.retries(#retries)));
        let limit = self.limit.as_ref().map(|permits| {
            let limiter = permits.limiter(krate);
            quote!(.limit(#limiter))
        });
        quote!(#krate::Options::new() #start #timeout #pool #priority #retries #limit)
    }
}

/// The name of a pool that is the task's own.
fn own_name(function: &str) -> TokenStream {
    quote!(::core::concat!(::core::module_path!(), "::", #function))
}

const TIMEOUT_INLINE: &str = "`timeout` contradicts `start = \"inline\"`: a plain call cannot be stopped";
const RETRIES_FORK: &str = "`retries` contradicts `start = \"fork\"`, which keeps no arguments for another attempt: \
                            use `forkserver` or `spawn`";
const RETRIES_INLINE: &str =
    "`retries` contradicts `start = \"inline\"`: a plain call has no worker that could die";
const FORK_IN_POOL: &str = "the workers of a pool are there before the task, they cannot be copies of its caller: \
                            use `forkserver`, `spawn` or `thread`, or remove `start`";
const INLINE_IN_POOL: &str = "a plain call needs no worker of a pool: remove `start`, or the pool";
const DAEMON_IN_POOL: &str =
    "`daemon` contradicts `pool`: a daemon is one worker of its own; remove one of the two";
const WORKERS_OF_DAEMON: &str = "`workers` contradicts `daemon`, which is one worker: \
                                 remove `workers`, or write `pool` in place of `daemon`";
const WORKERS_WITHOUT_POOL: &str = "`workers` is the size of a pool: add `pool`";
const CALLBACK_WITHOUT_RESULT: &str =
    "`callback` contradicts `discard`: there is no result to hand to it; remove one of the two";
