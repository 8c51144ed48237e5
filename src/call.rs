//! Calls that have not been made: values that can be kept, sent, and submitted later.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Mutex;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::argument::Refused;
use crate::error::{Cause, Error, Result};
use crate::ids::Name;
use crate::options::{Options, Portable as PortableOptions};
use crate::payload::Payload;
use crate::shared::SharedBytes;
use crate::sync::lock;
use crate::sys::{self, Entry, SameImage};
use crate::wire::Answer;
use crate::work::Work;

/// A task that has not been started: the function, its arguments, encoded, and its [`Options`].
///
/// `f::later(..)` makes one. It is a value: it can be cloned, kept, started more than once, and serialized; a program of
/// the same build can read it back. A closure that makes calls is a partial application: `|x| pow::later(x, 2)`.
///
/// # Examples
///
/// ```
/// use inparallel::{task, Call, Pool};
///
/// #[task]
/// fn pow(base: u64, exponent: u32) -> u64 {
///     base.pow(exponent)
/// }
///
/// let call: Call<u64> = pow::later(2, 8);
/// assert_eq!(call.clone().start().wait()?, 256);
///
/// let pool = Pool::new()?;
/// assert_eq!(pool.submit(call)?.wait()?, 256);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[must_use = "a call does nothing until it is started or submitted"]
pub struct Call<T> {
    name: Name,
    entry: &'static Entry<Answer>,
    /// The entry that runs many calls.
    many: &'static Entry<Answer>,
    payload: Payload,
    /// The arguments could not be encoded.
    refused: Option<Box<(String, String)>>,
    /// Most calls have none of their own.
    options: Option<Box<Options>>,
    value: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    pub(crate) fn new(
        options: Options,
        name: Name,
        entry: &'static Entry<Answer>,
        many: &'static Entry<Answer>,
        payload: std::result::Result<Payload, Refused>,
    ) -> Self {
        let (payload, refused) = match payload {
            Ok(payload) => (payload, None),
            Err(Refused { type_name, reason }) => (Payload::default(), Some(Box::new((type_name, reason)))),
        };
        Call {
            name,
            entry,
            many,
            payload,
            refused,
            options: (options != Options::new()).then(|| Box::new(options)),
            value: PhantomData,
        }
    }

    /// With other options, where these say something.
    pub fn with(mut self, options: Options) -> Self {
        self.options = Some(Box::new(options.or(self.options())));
        self
    }

    /// The function as `module::function`.
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    pub(crate) fn task_name(&self) -> Name {
        self.name
    }

    /// What was set for this call.
    pub(crate) fn options(&self) -> Options {
        self.options.as_deref().cloned().unwrap_or_default()
    }

    /// Whether nothing was.
    pub(crate) fn own_options(&self) -> Option<&Options> {
        self.options.as_deref()
    }

    pub(crate) fn entries(&self) -> (&'static Entry<Answer>, &'static Entry<Answer>) {
        (self.entry, self.many)
    }

    /// The encoded arguments, or why there are none.
    pub(crate) fn payload(&self) -> std::result::Result<&Payload, Cause> {
        match &self.refused {
            None => Ok(&self.payload),
            Some(refused) => Err(Cause::ArgumentNotEncodable {
                type_name: refused.0.clone(),
                reason: refused.1.clone(),
            }),
        }
    }

    /// The arguments of a call that has no options of its own, and nothing attached.
    pub(crate) fn plain_payload(&self) -> Option<&Payload> {
        let is_plain = self.options.is_none() && self.refused.is_none() && self.payload.attached().is_empty();
        is_plain.then_some(&self.payload)
    }

    pub(crate) fn work(&self) -> std::result::Result<Work, Cause> {
        Ok(Work {
            entry: self.entry,
            payload: self.payload()?.clone(),
        })
    }
}

impl<T> Clone for Call<T> {
    fn clone(&self) -> Self {
        Call {
            name: self.name,
            entry: self.entry,
            many: self.many,
            payload: self.payload.clone(),
            refused: self.refused.clone(),
            options: self.options.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("name", &format_args!("{}", self.name))
            .field("bytes", &self.payload.len())
            .field("options", &self.options())
            .finish()
    }
}

/// A call as it travels.
#[derive(Serialize, Deserialize)]
struct Portable {
    build_id: Vec<u8>,
    module: String,
    function: String,
    entries: [(i64, String); 2],
    payload: Vec<u8>,
    attached: Vec<SharedBytes>,
    options: PortableOptions,
}

/// Fails for arguments that could not be encoded, and for options that mean something in this process only: a limiter.
impl<T> Serialize for Call<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let payload = self
            .payload()
            .map_err(|cause| S::Error::custom(Error::new(self.name(), cause)))?;
        let options = self.options().portable().map_err(S::Error::custom)?;
        let entries = [self.entry, self.many].map(|entry| {
            let (distance, type_name) = entry.address();
            (distance, type_name.to_owned())
        });
        let portable = Portable {
            build_id: sys::build_id().to_vec(),
            module: self.name.module.to_owned(),
            function: self.name.function.to_owned(),
            entries,
            payload: payload.to_vec(),
            attached: payload.attached().to_vec(),
            options,
        };
        portable.serialize(serializer)
    }
}

/// Fails for a call that another build of the program has made.
impl<'de, T> Deserialize<'de> for Call<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let portable = Portable::deserialize(deserializer)?;
        let Some(image) = SameImage::check(&portable.build_id) else {
            return Err(D::Error::custom(
                "the call was made by another build of the program",
            ));
        };
        let find = |(distance, type_name): &(i64, String)| {
            image.find(*distance, type_name).map_err(D::Error::custom)
        };
        let [entry, many] = &portable.entries;
        Ok(Call {
            name: Name {
                module: interned(portable.module),
                function: interned(portable.function),
            },
            entry: find(entry)?,
            many: find(many)?,
            payload: Payload::new(portable.payload, portable.attached),
            refused: None,
            options: Some(Box::new(portable.options.into())),
            value: PhantomData,
        })
    }
}

/// A text that lives as long as the process. The names of tasks are few.
pub(crate) fn interned(text: String) -> &'static str {
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = lock(&TEXTS);
    let texts = texts.get_or_insert_default();
    match texts.get(text.as_str()) {
        Some(known) => known,
        None => {
            let text: &'static str = text.leak();
            texts.insert(text);
            text
        }
    }
}

/// Calls by name: for a program that is told by a configuration, or by a user, what to run.
///
/// # Examples
///
/// ```
/// use inparallel::{task, Tasks};
///
/// #[task]
/// fn get_data(key: String) -> String {
///     format!("data of {key}")
/// }
///
/// let tasks = Tasks::new().with("getData", get_data::later);
/// let call = tasks.call::<String, String>("getData", "a".into())?;
/// assert_eq!(call.start().wait()?, "data of a");
///
/// let error = tasks.call::<String, String>("getDada", "a".into()).unwrap_err();
/// assert!(error.to_string().contains("getData"));
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Default)]
pub struct Tasks {
    by_name: BTreeMap<String, Known>,
}

struct Known {
    signature: String,
    /// A `Box<dyn Fn(A) -> Call<R> + Send + Sync>`.
    make: Box<dyn Any + Send + Sync>,
}

type Make<A, R> = Box<dyn Fn(A) -> Call<R> + Send + Sync>;

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Tasks::default()
    }

    /// Adds what makes calls of one argument: `f::later`, or a closure such as `|(a, b)| f::later(a, b)`. A later one with
    /// the same name takes the place of the earlier.
    pub fn with<A: 'static, R: 'static>(
        mut self,
        name: impl Into<String>,
        make: impl Fn(A) -> Call<R> + Send + Sync + 'static,
    ) -> Self {
        let make: Make<A, R> = Box::new(make);
        let known = Known {
            signature: signature::<A, R>(),
            make: Box::new(make),
        };
        self.by_name.insert(name.into(), known);
        self
    }

    /// A call of the task with this name.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for an unknown name, and for other types than those of the task.
    pub fn call<A: 'static, R: 'static>(&self, name: &str, argument: A) -> Result<Call<R>> {
        let Some(known) = self.by_name.get(name) else {
            let names: Vec<_> = self.names().collect();
            let remedy = format!("known: {}", names.join(", "));
            return Err(Error::invalid("task", format!("{name:?}"), remedy));
        };
        match known.make.downcast_ref::<Make<A, R>>() {
            Some(make) => Ok(make(argument)),
            None => {
                let remedy = format!("{name} is {}", known.signature);
                Err(Error::invalid("types", signature::<A, R>(), remedy))
            }
        }
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

fn signature<A, R>() -> String {
    format!("{} -> {}", std::any::type_name::<A>(), std::any::type_name::<R>())
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.by_name.iter().map(|(name, known)| (name, &known.signature));
        f.debug_map().entries(entries).finish()
    }
}
