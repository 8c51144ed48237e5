//! What stands in `#[task(..)]`: one table of what is known, with the reader of each.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprUnary, Ident, Lit, LitStr, Path, Result, Token, UnOp, parse_quote};

use crate::parse::combine;

/// The options of one `#[task(..)]`.
pub(crate) struct Options {
    pub(crate) associated: bool,
    pub(crate) krate: Path,
    pub(crate) name: Option<LitStr>,
    timeout: Option<(Duration, Span)>,
    start: Option<&'static str>,
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
        if let (Some("Inline"), Some((_, span))) = (options.start, options.timeout) {
            let advice = "`timeout` contradicts `start = \"inline\"`: a plain call cannot be stopped";
            combine(&mut errors, Error::new(span, advice));
        }
        (options, errors)
    }

    /// An expression for the run-time options that a plain call of the task has.
    pub(crate) fn defaults(&self) -> TokenStream {
        let krate = &self.krate;
        let start = self.start.map(|method| {
            let method = format_ident!("{method}");
            quote!(.start(#krate::StartMethod::#method))
        });
        let timeout = self.timeout.map(|(limit, _)| {
            let (secs, nanos) = (limit.as_secs(), limit.subsec_nanos());
            quote!(.timeout(::core::time::Duration::new(#secs, #nanos)))
        });
        quote!(#krate::Options::new() #start #timeout)
    }
}

/// One entry: `name` or `name = value`.
struct Given {
    name: Ident,
    value: Option<Expr>,
}

impl Parse for Given {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input
            .call(Ident::parse_any)
            .map_err(|error| Error::new(error.span(), format!("known options: {}", known())))?;
        let value = if input.parse::<Option<Token![=]>>()?.is_some() {
            Some(input.parse()?)
        } else {
            None
        };
        Ok(Given { name, value })
    }
}

impl Given {
    fn apply(&self, options: &mut Options) -> Result<()> {
        match KNOWN.iter().find(|known| self.name == known.name) {
            Some(known) => (known.read)(options, self),
            None => Err(Error::new(
                self.name.span(),
                format!("unknown option `{}`; known: {}", self.name, known()),
            )),
        }
    }

    fn text(&self) -> Result<&LitStr> {
        match &self.value {
            Some(Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            })) => Ok(text),
            Some(other) => Err(self.expected(other.span())),
            None => Err(self.expected(self.name.span())),
        }
    }

    fn expected(&self, span: Span) -> Error {
        let form = KNOWN
            .iter()
            .find(|known| self.name == known.name)
            .map_or("", |known| known.form);
        Error::new(span, format!("write `{form}`"))
    }
}

/// An option: its name, how it is written, and what reads it.
struct Known {
    name: &'static str,
    form: &'static str,
    read: fn(&mut Options, &Given) -> Result<()>,
}

const KNOWN: &[Known] = &[
    Known {
        name: "associated",
        form: "associated",
        read: associated,
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
        name: "name",
        form: "name = \"text\"",
        read: name,
    },
    Known {
        name: "crate",
        form: "crate = \"path\"",
        read: krate,
    },
];

fn known() -> String {
    let list: Vec<_> = KNOWN.iter().map(|known| format!("`{}`", known.form)).collect();
    list.join(", ")
}

fn associated(options: &mut Options, given: &Given) -> Result<()> {
    if let Some(value) = &given.value {
        return Err(given.expected(value.span()));
    }
    options.associated = true;
    Ok(())
}

fn timeout(options: &mut Options, given: &Given) -> Result<()> {
    let Some(value) = &given.value else {
        return Err(given.expected(given.name.span()));
    };
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
    let span = value.span();
    let limit = duration(&text).map_err(|problem| Error::new(span, problem))?;
    options.timeout = Some((limit, given.name.span()));
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

fn name(options: &mut Options, given: &Given) -> Result<()> {
    let text = given.text()?;
    if text.value().trim().is_empty() {
        return Err(Error::new(text.span(), "the name is empty"));
    }
    options.name = Some(text.clone());
    Ok(())
}

fn krate(options: &mut Options, given: &Given) -> Result<()> {
    let text = given.text()?;
    options.krate = text
        .parse_with(Path::parse_mod_style)
        .map_err(|_| given.expected(text.span()))?;
    Ok(())
}

/// What `start` may say, and the variant of `StartMethod` that it means.
const START_METHODS: &[(&str, &str)] = &[
    ("fork", "Fork"),
    ("forkserver", "ForkServer"),
    ("spawn", "Spawn"),
    ("thread", "Thread"),
    ("inline", "Inline"),
];

/// Reads `5s`, `1.5h` and the like.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    if text.starts_with('-') {
        return Err(NOT_POSITIVE.to_owned());
    }
    let unknown =
        || format!("`{text}` is not a duration: write a number and `ms`, `s`, `min` or `h`, such as \"5s\"");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(unknown)?);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(unknown()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(unknown());
    }
    let too_long = || format!("`{text}` is too long: leave the option out for no limit");
    let limit = if number.contains('.') {
        let count: f64 = number.parse().map_err(|_| unknown())?;
        Duration::try_from_secs_f64(count * millis_per_unit as f64 / 1_000.0).map_err(|_| too_long())?
    } else if number.is_empty() {
        return Err(unknown());
    } else {
        let count: Option<u64> = number.parse().ok();
        Duration::from_millis(
            count
                .and_then(|count| count.checked_mul(millis_per_unit))
                .ok_or_else(too_long)?,
        )
    };
    if limit.is_zero() {
        Err(NOT_POSITIVE.to_owned())
    } else {
        Ok(limit)
    }
}

const NOT_POSITIVE: &str = "the timeout must be longer than zero: leave the option out for no limit";
