//! What may stand in `#[task(..)]`: one table of what is known, with the reader of each.

use std::ops::RangeInclusive;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprUnary, Ident, Lit, LitStr, Path, Result, Token, UnOp};

use crate::duration::duration;
use crate::limit::Permits;
use crate::options::{Options, Pool};

/// One entry: `name` or `name = value`.
pub(crate) struct Given {
    pub(crate) name: Ident,
    value: Option<Expr>,
}

impl Parse for Given {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input
            .call(Ident::parse_any)
            .map_err(|error| Error::new(error.span(), format!("known options: {}", known())))?;
        let value = if input.parse::<Option<Token![=]>>()?.is_some() {
            Some(without_groups(input.parse()?))
        } else {
            None
        };
        Ok(Given { name, value })
    }
}

impl Given {
    /// Puts what was given into the options.
    pub(crate) fn apply(&self, options: &mut Options) -> Result<()> {
        match KNOWN.iter().find(|known| self.name == known.name) {
            Some(known) => (known.read)(options, self),
            None => Err(Error::new(
                self.name.span(),
                format!("unknown option `{}`; known: {}", self.name, known()),
            )),
        }
    }

    fn value(&self) -> Result<&Expr> {
        self.value.as_ref().ok_or_else(|| self.expected(self.name.span()))
    }

    fn flag(&self) -> Result<()> {
        match &self.value {
            Some(value) => Err(self.expected(value.span())),
            None => Ok(()),
        }
    }

    fn text(&self) -> Result<&LitStr> {
        match self.value()? {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => Ok(text),
            other => Err(self.expected(other.span())),
        }
    }

    fn text_that_says_something(&self) -> Result<&LitStr> {
        let text = self.text()?;
        if text.value().trim().is_empty() {
            return Err(Error::new(text.span(), "the name is empty"));
        }
        Ok(text)
    }

    fn number(&self, range: RangeInclusive<i64>) -> Result<i64> {
        let value = self.value()?;
        match integer(value) {
            None => Err(self.expected(value.span())),
            Some(Some(number)) if range.contains(&number) => Ok(number),
            Some(_) => Err(Error::new(
                value.span(),
                format!("`{}` is from {} to {}", self.name, range.start(), range.end()),
            )),
        }
    }

    fn expected(&self, span: Span) -> Error {
        Error::new(span, format!("write `{}`", self.form()))
    }

    fn form(&self) -> &'static str {
        KNOWN
            .iter()
            .find(|known| self.name == known.name)
            .map_or("", |known| known.form)
    }
}

/// The value of a literal, perhaps with a minus. `None`: it is something else. `Some(None)`: it is beyond all ranges.
pub(crate) fn integer(value: &Expr) -> Option<Option<i64>> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) if number.suffix().is_empty() => Some(number.base10_parse().ok()),
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_),
            expr,
            ..
        }) => integer(expr).map(|number| number.and_then(i64::checked_neg)),
        _ => None,
    }
}

/// The path in a text, as in `crate = "path"`.
pub(crate) fn path(text: &LitStr) -> Result<Path> {
    text.parse_with(Path::parse_mod_style)
        .map_err(|_| Error::new(text.span(), "write `crate = \"path\"`"))
}

/// The expression without the groups that `macro_rules` put around what they pass on.
pub(crate) fn without_groups(mut value: Expr) -> Expr {
    while let Expr::Group(group) = value {
        value = *group.expr;
    }
    value
}

/// An option: its name, how it is written, and what reads it.
struct Known {
    name: &'static str,
    /// Stands between backticks: two forms have their own between them.
    form: &'static str,
    read: fn(&mut Options, &Given) -> Result<()>,
}

const KNOWN: &[Known] = &[
    Known {
        name: "associated",
        form: "associated",
        read: |options, given| {
            given.flag()?;
            options.associated = true;
            Ok(())
        },
    },
    Known {
        name: "timeout",
        form: "timeout = \"5s\"",
        read: timeout,
    },
    Known {
        name: "start",
        form: "start = \"spawn\"",
        read: start,
    },
    Known {
        name: "pool",
        form: "pool` or `pool = \"name\"",
        read: pool,
    },
    Known {
        name: "workers",
        form: "workers = 4",
        read: workers,
    },
    Known {
        name: "daemon",
        form: "daemon",
        read: |options, given| {
            given.flag()?;
            options.pool = Some(Pool::Daemon);
            Ok(())
        },
    },
    Known {
        name: "priority",
        form: "priority = 1",
        read: |options, given| {
            let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
            options.priority = i32::try_from(given.number(range)?).ok();
            Ok(())
        },
    },
    Known {
        name: "retries",
        form: "retries = 2",
        read: |options, given| {
            options.retries = u32::try_from(given.number(0..=i64::from(u32::MAX))?).ok();
            Ok(())
        },
    },
    Known {
        name: "limit",
        form: "limit = 3` or `limit = path::TO_A_STATIC",
        read: |options, given| {
            options.limit = Some(Permits::read(given.value()?, given.form())?);
            Ok(())
        },
    },
    Known {
        name: "callback",
        form: "callback = path::to::function",
        read: callback,
    },
    Known {
        name: "discard",
        form: "discard",
        read: |options, given| {
            given.flag()?;
            options.discard = true;
            Ok(())
        },
    },
    Known {
        name: "name",
        form: "name = \"text\"",
        read: |options, given| {
            options.name = Some(given.text_that_says_something()?.clone());
            Ok(())
        },
    },
    Known {
        name: "crate",
        form: "crate = \"path\"",
        read: |options, given| {
            options.krate = path(given.text()?)?;
            Ok(())
        },
    },
];

fn known() -> String {
    let list: Vec<_> = KNOWN.iter().map(|known| format!("`{}`", known.form)).collect();
    list.join(", ")
}

fn timeout(options: &mut Options, given: &Given) -> Result<()> {
    let value = given.value()?;
    let text = match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) => text.value(),
        // A bare number counts seconds.
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) if number.suffix().is_empty() => {
            format!("{}s", number.base10_digits())
        }
        Expr::Lit(ExprLit {
            lit: Lit::Float(number),
            ..
        }) if number.suffix().is_empty() => {
            // Without the exponent that it may have.
            format!("{}s", number.base10_parse::<f64>()?)
        }
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), .. }) => "-".to_owned(),
        other => return Err(given.expected(other.span())),
    };
    let limit = duration(&text).map_err(|problem| Error::new(value.span(), problem))?;
    options.timeout = Some(limit);
    Ok(())
}

fn start(options: &mut Options, given: &Given) -> Result<()> {
    let text = given.text()?;
    let method = text.value();
    match START_METHODS.iter().find(|(name, _)| *name == method) {
        Some((_, variant)) => {
            options.start = Some(variant);
            Ok(())
        }
        None => {
            let list: Vec<_> = START_METHODS
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            Err(Error::new(
                text.span(),
                format!("unknown start method `{method}`; known: {}", list.join(", ")),
            ))
        }
    }
}

fn pool(options: &mut Options, given: &Given) -> Result<()> {
    options.pool = Some(match &given.value {
        Some(_) => Pool::Named(given.text_that_says_something()?.clone()),
        None => Pool::Own,
    });
    Ok(())
}

fn workers(options: &mut Options, given: &Given) -> Result<()> {
    let value = given.value()?;
    if integer(value) == Some(Some(0)) {
        let advice = "a pool without workers runs nothing: leave `workers` out for as many as the machine runs in parallel";
        return Err(Error::new(value.span(), advice));
    }
    options.workers = u32::try_from(given.number(1..=i64::from(u32::MAX))?).ok();
    Ok(())
}

fn callback(options: &mut Options, given: &Given) -> Result<()> {
    match given.value()? {
        Expr::Path(path) => {
            // `Self` has a meaning in an `impl` only.
            options.associated |= path.path.segments.iter().any(|segment| segment.ident == "Self");
            options.callback = Some(path.clone());
            Ok(())
        }
        other => Err(given.expected(other.span())),
    }
}

/// What `start` may say, and the variant of `StartMethod` that it means.
const START_METHODS: &[(&str, &str)] = &[
    ("fork", "Fork"),
    ("forkserver", "ForkServer"),
    ("spawn", "Spawn"),
    ("thread", "Thread"),
    ("inline", "Inline"),
];
