//! Which attributes of the function go to which generated item.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{AttrStyle, Attribute, Meta, Token, parse_quote};

/// A generated item, as far as attributes are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The function of the user's name, which starts the task.
    Call,
    /// The function with the user's body.
    Inline,
    /// The function that takes or makes options.
    With,
    /// Anything else.
    Other,
}

/// The attributes of the function that belong to `place`.
pub(crate) fn of(attributes: &[Attribute], place: Place) -> Vec<Attribute> {
    attributes
        .iter()
        .filter_map(|attribute| {
            let mut attribute = attribute.clone();
            // `#![..]` inside the body is the function's as well.
            attribute.style = AttrStyle::Outer;
            attribute.meta = adapt(attribute.meta, place)?;
            Some(attribute)
        })
        .collect()
}

fn adapt(meta: Meta, place: Place) -> Option<Meta> {
    let name = meta
        .path()
        .get_ident()
        .map(ToString::to_string)
        .unwrap_or_default();
    let keep = match name.as_str() {
        "cfg" | "allow" => true,
        "cfg_attr" => return adapt_cfg_attr(&meta, place),
        // The text once only, since it may hold doc tests.
        "doc" => place == Place::Call || mentions(&meta, &["hidden"]),
        "deprecated" => place != Place::Other,
        // Without a message it would repeat that of `TaskFuture`, which clippy reports.
        "must_use" => place == Place::Inline || place == Place::Call && !matches!(meta, Meta::Path(_)),
        "warn" | "deny" | "forbid" => matches!(place, Place::Call | Place::Inline),
        // Where the body is not, nothing would meet the expectation; and nothing of a task is dead code on its own.
        "expect" if place != Place::Inline || mentions(&meta, &["dead_code", "unused"]) => {
            let lints = &meta.require_list().ok()?.tokens;
            return Some(parse_quote!(allow(#lints)));
        }
        // `inline`, `track_caller`, other attribute macros: they go with the body.
        _ => place == Place::Inline,
    };
    keep.then_some(meta)
}

/// `cfg_attr(condition, a, b)` with those of `a` and `b` that belong to `place`.
fn adapt_cfg_attr(meta: &Meta, place: Place) -> Option<Meta> {
    let parts = |input: ParseStream<'_>| {
        // The condition may be what `Meta` is not, such as `true`.
        let mut condition = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            condition.extend([input.parse::<TokenTree>()?]);
        }
        input.parse::<Token![,]>()?;
        Ok((condition, Punctuated::<Meta, Token![,]>::parse_terminated(input)?))
    };
    let (condition, parts) = meta.require_list().ok()?.parse_args_with(parts).ok()?;
    let kept: Vec<_> = parts.into_iter().filter_map(|part| adapt(part, place)).collect();
    (!kept.is_empty()).then(|| parse_quote!(cfg_attr(#condition, #(#kept),*)))
}

fn mentions(meta: &Meta, lints: &[&str]) -> bool {
    let Ok(list) = meta.require_list() else {
        return false;
    };
    list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
        .is_ok_and(|parts| {
            parts
                .iter()
                .any(|part| lints.iter().any(|lint| part.path().is_ident(lint)))
        })
}
