//! What the output of `#[task]` refers to. No promise to anyone else.

pub use crate::argument::{
    Argument, Output, Refused, Slice, decode, decode_slice, encode, encode_borrowed, encode_moved,
    encode_slice,
};
pub use crate::ids::Name;
pub use crate::options::PoolSpec;
pub use crate::task::{later, start};

/// Asks for no more than that the result can travel, so that the compiler says once that it cannot.
pub fn output<R: Output>() {}

/// What the running task's function gets for a parameter `&TaskContext`.
pub fn context() -> crate::TaskContext {
    crate::TaskContext::current()
}

/// The setters of [`Options`](crate::Options) over a field `options`.
#[doc(hidden)]
#[macro_export]
macro_rules! __task_options {
    () => {
        $crate::__task_options! {
            start(method: $crate::StartMethod);
            timeout(limit: ::core::time::Duration);
            grace(grace: ::core::time::Duration);
            kill_on_drop();
            stderr(stderr: $crate::Stderr);
            max_result(bytes: u64);
            program(path: impl ::core::convert::Into<::std::path::PathBuf>);
            priority(priority: i32);
            retries(count: u32);
            retry_on(kind: $crate::ErrorKind);
            retry_errors();
            backoff(pause: ::core::time::Duration);
            spin(limit: ::core::time::Duration);
            limit(limiter: &$crate::Limiter);
        }
    };
    ($($name:ident($($argument:ident: $type:ty)?);)*) => {
        $(
            #[doc = concat!("As `inparallel::Options::", stringify!($name), "`.")]
            #[allow(dead_code)]
            #[must_use]
            pub fn $name(mut self $(, $argument: $type)?) -> Self {
                self.options = self.options.$name($($argument)?);
                self
            }
        )*
    };
}

pub use crate::__task_options as task_options;
