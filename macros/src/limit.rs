//! `#[limit(..)]`: a function that few callers are in at a time.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Error, Expr, ExprPath, Ident, Item, ItemFn, LitStr, Path, Result, Token, TraitItemFn, parse_quote,
};

use crate::known::{integer, path, without_groups};
use crate::parse::combine;

/// How many permits there are, or where they are.
pub(crate) enum Permits {
    Number(u32),
    Shared(ExprPath),
}

impl Permits {
    /// Reads a value; `form` is how it should be written.
    pub(crate) fn read(value: &Expr, form: &str) -> Result<Self> {
        match (value, integer(value)) {
            (Expr::Path(path), _) => Ok(Permits::Shared(path.clone())),
            (_, Some(Some(0))) => Err(Error::new(value.span(), LIMIT_OF_ZERO)),
            (_, Some(number)) => match number.and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Ok(Permits::Number(number)),
                None => Err(Error::new(
                    value.span(),
                    format!("a limit is from 1 to {}", u32::MAX),
                )),
            },
            (_, None) => Err(Error::new(value.span(), format!("write `{form}`"))),
        }
    }

    /// An expression of type `&'static Limiter`.
    pub(crate) fn limiter(&self, krate: &Path) -> TokenStream {
        match self {
            Permits::Number(number) => {
                let number = Literal::u32_unsuffixed(*number);
                quote!({
                    static LIMITER: #krate::Limiter = #krate::Limiter::new(#number);
                    &LIMITER
                })
            }
            // With its type, so that the compiler refuses a `const`, which would be a new limiter each time.
            Permits::Shared(path) => {
                let limiter = Ident::new("limiter", Span::mixed_site());
                let reference = quote_spanned!(path.span()=> &#path);
                quote!({
                    let #limiter: &'static #krate::Limiter = #reference;
                    #limiter
                })
            }
        }
    }
}

/// The function, with a permit around its body; or the function as it is, and what is wrong.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (limit, function) = (syn::parse2::<Limit>(attribute), read(item.clone()));
    let mut errors = None;
    match (limit, function) {
        (Ok(limit), Ok(mut function)) => {
            let permit = Ident::new("_permit", Span::mixed_site());
            let krate = &limit.krate;
            let limiter = limit.permits.limiter(krate);
            let body = (*function.block).clone();
            // The body keeps braces of its own: its items are still its first statements. The outer ones are the user's too,
            // else lints about the function would be taken for the macro's own affair.
            function.block.stmts = parse_quote! {
                let #permit = #krate::Limiter::acquire(#limiter);
                #body
            };
            return function.into_token_stream();
        }
        (limit, function) => {
            for error in [limit.err(), function.err()].into_iter().flatten() {
                combine(&mut errors, error);
            }
        }
    }
    let errors = errors.map(Error::into_compile_error);
    quote!(#item #errors)
}

/// What stands in the parentheses.
struct Limit {
    permits: Permits,
    krate: Path,
}

impl Parse for Limit {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Err(Error::new(input.span(), format!("write `{FORM}`")));
        }
        let permits = Permits::read(&without_groups(input.parse()?), FORM)?;
        let mut krate = parse_quote!(::inparallel);
        if input.parse::<Option<Token![,]>>()?.is_some() && !input.is_empty() {
            let name = input.call(Ident::parse_any)?;
            if name != "crate" {
                let advice = format!("unknown option `{name}`; known: `crate = \"path\"`");
                return Err(Error::new(name.span(), advice));
            }
            input.parse::<Token![=]>()?;
            krate = path(&input.parse::<LitStr>()?)?;
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(Limit { permits, krate })
    }
}

fn read(item: TokenStream) -> Result<ItemFn> {
    let function: ItemFn = syn::parse2(item.clone()).map_err(|error| not_a_function(item, error))?;
    let mut errors = None;
    let mut refuse = |span: Option<Span>, advice: &str| {
        if let Some(span) = span {
            combine(&mut errors, Error::new(span, advice));
        }
    };
    refuse(
        function.sig.constness.map(|token| token.span),
        "a `const fn` cannot wait for a permit: remove `const`",
    );
    refuse(
        function.sig.asyncness.map(|token| token.span),
        "an `async fn` would block its executor while it waits for a permit: \
         put `#[limit]` on the plain function that it calls",
    );
    let task = function.attrs.iter().find(|attribute| {
        let name = attribute.path().segments.last();
        name.is_some_and(|name| name.ident == "task" || name.ident == "processed")
    });
    if let Some(task) = task {
        combine(&mut errors, Error::new_spanned(task, LIMITED_TASK));
    }
    match errors {
        Some(errors) => Err(errors),
        None => Ok(function),
    }
}

fn not_a_function(item: TokenStream, error: Error) -> Error {
    if let Ok(function) = syn::parse2::<TraitItemFn>(item.clone()) {
        return Error::new(
            function.sig.ident.span(),
            "`#[limit]` goes on a function with a body",
        );
    }
    match syn::parse2::<Item>(item) {
        Ok(item) => Error::new(item.span(), "`#[limit]` goes on a function"),
        Err(_) => error,
    }
}

/// Why `#[limit]` and `#[task]` do not go together, whichever of them sees the other.
pub(crate) const LIMITED_TASK: &str = "a permit that a worker takes keeps no other worker waiting: \
                                       remove `#[limit]` and give the task the limit, as in `#[task(limit = n)]`";

const LIMIT_OF_ZERO: &str = "a limit of zero lets nothing run: leave it out for no limit";

const FORM: &str = "#[limit(3)]` or `#[limit(path::TO_A_STATIC)]";
