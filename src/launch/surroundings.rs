//! What of the program's state of a moment its workers find: the working directory, the environment, the rights.

use std::ffi::{OsStr, OsString};

use crate::sys;

/// The surroundings of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Surroundings {
    /// A directory that was removed has no name: the worker then has the fork server's.
    pub(crate) directory: Option<OsString>,
    pub(crate) environment: Environment,
    pub(crate) identity: sys::Identity,
}

impl Surroundings {
    /// Looked at in the calling thread: the supervisor's moment is a later one.
    pub(crate) fn now() -> Surroundings {
        Surroundings {
            directory: directory_now(),
            environment: Environment::now(),
            identity: sys::identity(),
        }
    }

    /// Whether they are what [`now`](Surroundings::now) would give.
    pub(crate) fn are_now(&self) -> bool {
        self.directory == directory_now() && self.identity == sys::identity() && self.environment.is_now()
    }
}

fn directory_now() -> Option<OsString> {
    std::env::current_dir().ok().map(Into::into)
}

/// Names and values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pairs: Vec<(OsString, OsString)>,
    /// The same in one piece: it is compared at each call, and lies together in memory.
    flat: Vec<u8>,
}

impl Environment {
    fn now() -> Environment {
        Environment::of(std::env::vars_os().collect())
    }

    fn of(pairs: Vec<(OsString, OsString)>) -> Environment {
        let mut flat = Vec::new();
        for (name, value) in &pairs {
            flat.extend_from_slice(name.as_encoded_bytes());
            flat.push(0);
            flat.extend_from_slice(value.as_encoded_bytes());
            flat.push(0);
        }
        Environment { pairs, flat }
    }

    fn is_now(&self) -> bool {
        let mut rest = self.flat.as_slice();
        let is_so =
            std::env::vars_os().all(|(name, value)| take(&mut rest, &name) && take(&mut rest, &value));
        is_so && rest.is_empty()
    }

    pub(crate) fn pairs(&self) -> &[(OsString, OsString)] {
        &self.pairs
    }

    /// The same with these in it.
    pub(crate) fn with(self, others: &[(OsString, OsString)]) -> Environment {
        let mut pairs = self.pairs;
        for (name, value) in others {
            pairs.retain(|(other, _)| other != name);
            pairs.push((name.clone(), value.clone()));
        }
        Environment::of(pairs)
    }
}

/// Takes what was put in one piece from its beginning; false: something else stands there.
fn take(rest: &mut &[u8], text: &OsStr) -> bool {
    let after = rest.strip_prefix(text.as_encoded_bytes());
    let after = after.and_then(|after| after.strip_prefix(&[0]));
    *rest = after.unwrap_or_default();
    after.is_some()
}

impl PartialEq for Environment {
    fn eq(&self, other: &Environment) -> bool {
        self.flat == other.flat
    }
}

impl Eq for Environment {}

#[cfg(test)]
#[path = "surroundings_tests.rs"]
mod tests;
