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
use crate::wire::{Answer, Short};
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
    /// Most calls have nothing of this.
    rare: Option<Box<Rare>>,
    value: PhantomData<fn() -> T>,
}

#[derive(Clone, Default)]
struct Rare {
    options: Option<Options>,
    /// Why the arguments could not be encoded.
    refused: Option<Refused>,
}

impl<T> Call<T> {
    /// One that nothing was set for.
    #[inline(always)]
    pub(crate) fn plain(
        name: Name,
        entry: &'static Entry<Answer>,
        many: &'static Entry<Answer>,
        payload: Payload,
    ) -> Self {
        Call {
            name,
            entry,
            many,
            payload,
            rare: None,
            value: PhantomData,
        }
    }

    /// One with options, or whose arguments could not be encoded.
    #[inline(never)]
    pub(crate) fn new(
        options: Options,
        name: Name,
        entry: &'static Entry<Answer>,
        many: &'static Entry<Answer>,
        payload: std::result::Result<Payload, Refused>,
    ) -> Self {
        let (payload, refused) = match payload {
            Ok(payload) => (payload, None),
            Err(refused) => (Payload::EMPTY, Some(refused)),
        };
        let rare = Rare {
            options: Some(options),
            refused,
        };
        Call {
            rare: Some(Box::new(rare)),
            ..Call::plain(name, entry, many, payload)
        }
    }

    /// With other options, where these say something.
    pub fn with(mut self, options: Options) -> Self {
        let options = options.or(self.options());
        self.rare.get_or_insert_default().options = Some(options);
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
        self.own_options().cloned().unwrap_or_default()
    }

    /// The same; `None`: nothing was.
    #[inline]
    pub(crate) fn own_options(&self) -> Option<&Options> {
        self.rare.as_ref()?.options.as_ref()
    }

    #[inline]
    pub(crate) fn entries(&self) -> (&'static Entry<Answer>, &'static Entry<Answer>) {
        (self.entry, self.many)
    }

    /// The encoded arguments, or why there are none.
    pub(crate) fn payload(&self) -> std::result::Result<&Payload, Cause> {
        match self.rare.as_ref().and_then(|rare| rare.refused.clone()) {
            None => Ok(&self.payload),
            Some(Refused { type_name, reason }) => Err(Cause::ArgumentNotEncodable { type_name, reason }),
        }
    }

    /// The arguments of a call that has no options of its own, and nothing attached.
    #[inline]
    pub(crate) fn plain_payload(&self) -> Option<&Payload> {
        match self.rare.is_none() && self.payload.attached().is_empty() {
            true => Some(&self.payload),
            false => None,
        }
    }

    /// The arguments themselves, if they are few, nothing was set, and `many` is the entry that runs many of these calls.
    #[inline(always)]
    pub(crate) fn into_short(
        self,
        many: Option<&'static Entry<Answer>>,
    ) -> std::result::Result<(u8, Short), Self> {
        match self {
            Call {
                name: _,
                entry: _,
                many: own,
                payload: Payload::Short { len, bytes },
                rare: None,
                value: PhantomData,
            } if many.is_some_and(|many| std::ptr::eq(many, own)) => {
                // It has nothing to drop, and to find that out takes as long as all the rest.
                std::mem::forget(self);
                Ok((len, bytes))
            }
            other => Err(other),
        }
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
            rare: self.rare.clone(),
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
            rare: Some(Box::new(Rare {
                options: Some(portable.options.into()),
                refused: None,
            })),
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
