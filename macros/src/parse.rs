//! Reads the function, and refuses what cannot run in another process, with advice at the place.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, FnArg, Ident, Item, ItemFn, Lifetime, Pat, PatType, Receiver, ReceiverKind, Result,
    ReturnType, Safety, Signature, Type, TypeReference, TypeTraitObject, parse_quote,
};

use crate::context::{self, Context};
use crate::limit::LIMITED_TASK;
use crate::options::Options;

/// A function that can be a task.
pub(crate) struct Task {
    pub(crate) function: ItemFn,
    pub(crate) receiver: Option<SelfBy>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) context: Option<Context>,
    pub(crate) output: Type,
    /// Whether `Self` occurs, so that the function must stand in an `impl`.
    pub(crate) mentions_self: bool,
}

/// How a method takes `self`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SelfBy {
    Value,
    Reference,
}

/// An argument: as declared, and as the worker owns it.
pub(crate) struct Argument {
    /// The name where the body does not see it: the declared one, unless that is a pattern.
    pub(crate) name: Ident,
    pub(crate) declared: Type,
    pub(crate) owned: Type,
    lend: Lend,
}

/// What makes the declared type from the owned one.
enum Lend {
    Move,
    Reference,
    Slice(Box<Type>),
    Borrow(Box<Type>),
}

impl Task {
    /// Reads the item that the attribute stands on.
    pub(crate) fn read(item: TokenStream, options: &Options) -> Result<Self> {
        let function: ItemFn = syn::parse2(item.clone()).map_err(|error| not_a_function(item, error))?;
        let sig = &function.sig;
        let mut errors = None;
        check_qualifiers(sig, &mut errors);
        if let Some(limit) = function.attrs.iter().find(|attribute| is_limit(attribute)) {
            combine(&mut errors, Error::new_spanned(limit, LIMITED_TASK));
        }
        let (mut receiver, mut arguments, mut context) = (None, Vec::new(), None);
        for (index, input) in sig.inputs.iter().enumerate() {
            let result = match input {
                FnArg::Receiver(this) => self_by(this).map(|by| receiver = Some(by)),
                FnArg::Typed(typed) => match Context::read(index, typed) {
                    Ok(Some(_)) if context.is_some() => Err(Error::new_spanned(&typed.ty, context::TWICE)),
                    Ok(Some(found)) => conditional(typed).map(|()| context = Some(found)),
                    Ok(None) => Argument::read(index, typed).map(|argument| arguments.push(argument)),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = result {
                combine(&mut errors, error);
            }
        }
        let sent = sig.inputs.iter().enumerate();
        let mut sent =
            sent.filter(|(index, _)| context.as_ref().is_none_or(|context| context.index != *index));
        if let Some((_, input)) = sent.nth(MOST_ARGUMENTS) {
            combine(&mut errors, Error::new(input.span(), TOO_MANY_ARGUMENTS));
        }
        let output = match &sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, output) => {
                // What is dropped in the worker may be anything.
                if !options.discard {
                    check_output(output, &mut errors);
                }
                (**output).clone()
            }
        };
        if let Some(error) = errors {
            return Err(error);
        }
        let mut finder = FindSelf(false);
        finder.visit_item_fn(&function);
        Ok(Task {
            receiver,
            arguments,
            context,
            output,
            mentions_self: finder.0,
            function,
        })
    }
}

impl Argument {
    fn read(index: usize, typed: &PatType) -> Result<Self> {
        conditional(typed)?;
        let name = match &*typed.pat {
            // A capital letter: perhaps no variable, but the pattern of a constant or a unit struct.
            Pat::Ident(pat) if !pat.ident.to_string().starts_with(char::is_uppercase) => pat.ident.clone(),
            _ => format_ident!(
                "__arg{index}",
                span = Span::mixed_site().located_at(typed.pat.span())
            ),
        };
        let declared = (*typed.ty).clone();
        let (owned, lend) = match peel(&declared) {
            Type::Reference(reference) => lent(reference)?,
            other => (other.clone(), Lend::Move),
        };
        let mut errors = None;
        Nested {
            errors: &mut errors,
            advice: NESTED_REFERENCE,
        }
        .visit_type(&owned);
        if let Some(error) = errors {
            return Err(error);
        }
        let owned = without_lifetimes(owned);
        Ok(Argument {
            name,
            declared,
            owned,
            lend,
        })
    }

    /// The function of `inparallel::private` that makes bytes of the declared value, and the value as it takes it.
    pub(crate) fn encode(&self) -> (TokenStream, TokenStream) {
        let name = &self.name;
        let function = match (&self.lend, peel(&self.declared)) {
            (Lend::Slice(elem), _) => quote!(encode_slice::<#elem>),
            (Lend::Borrow(target), _) => quote!(encode_borrowed::<#target>),
            (Lend::Reference, Type::Reference(TypeReference { elem, .. })) => quote!(encode::<#elem>),
            (Lend::Reference, declared) => quote!(encode::<#declared>),
            (Lend::Move, declared) => return (quote!(encode_moved::<#declared>), quote!(#name)),
        };
        (function, quote!(&#name))
    }

    /// The function of `inparallel::private` that makes the owned value.
    pub(crate) fn decode(&self) -> TokenStream {
        let owned = &self.owned;
        match &self.lend {
            Lend::Slice(elem) => {
                let elem = without_lifetimes((**elem).clone());
                quote!(decode_slice::<#elem>)
            }
            _ => quote!(decode::<#owned>),
        }
    }

    /// The type that the worker has.
    pub(crate) fn held(&self, krate: &syn::Path) -> TokenStream {
        let owned = &self.owned;
        match &self.lend {
            Lend::Slice(elem) => {
                let elem = without_lifetimes((**elem).clone());
                quote!(#krate::private::Slice<#elem>)
            }
            _ => quote!(#owned),
        }
    }

    /// An expression of the declared type, from the variable that holds the owned value.
    pub(crate) fn lend(&self) -> TokenStream {
        let name = &self.name;
        match &self.lend {
            Lend::Move => quote!(#name),
            Lend::Reference => quote!(&#name),
            Lend::Slice(_) => quote!(&#name[..]),
            Lend::Borrow(target) => quote!(::core::borrow::Borrow::<#target>::borrow(&#name)),
        }
    }
}

/// Refuses `#[cfg]` on a parameter.
fn conditional(typed: &PatType) -> Result<()> {
    let mut attributes = typed.attrs.iter();
    match attributes.find(|attribute| attribute.path().is_ident("cfg")) {
        Some(attribute) => Err(Error::new(
            attribute.span(),
            "a task's argument cannot be conditional: put `#[cfg]` on two functions",
        )),
        None => Ok(()),
    }
}

fn is_limit(attribute: &Attribute) -> bool {
    let name = attribute.path().segments.last();
    name.is_some_and(|name| name.ident == "limit")
}

/// Adds an error to those that are already there.
pub(crate) fn combine(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}

/// The type without the groups that macros and parentheses put around it.
pub(crate) fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            other => return other,
        };
    }
}

fn not_a_function(item: TokenStream, error: Error) -> Error {
    if let Ok(function) = syn::parse2::<syn::TraitItemFn>(item.clone()) {
        return Error::new(function.sig.ident.span(), "a task needs a body");
    }
    match syn::parse2::<Item>(item) {
        Ok(Item::Impl(item)) => Error::new(
            item.impl_token.span,
            "the attribute goes on the functions inside the `impl`, each one for itself",
        ),
        Ok(Item::Trait(item)) => Error::new(
            item.trait_token.span,
            "the attribute goes on the functions inside the trait that have a body",
        ),
        Ok(item) => Error::new(item.span(), "the attribute goes on a function"),
        Err(_) => error,
    }
}

fn check_qualifiers(sig: &Signature, errors: &mut Option<Error>) {
    let mut refuse = |span: Option<Span>, advice: &str| {
        if let Some(span) = span {
            combine(errors, Error::new(span, advice));
        }
    };
    refuse(
        sig.constness.map(|token| token.span),
        "a task cannot be `const`, it runs in another process: remove `const`",
    );
    refuse(
        sig.asyncness.map(|token| token.span),
        "a task cannot be `async`, its worker has no executor: remove `async`, its callers can `.await` the future all the same",
    );
    let safety = match &sig.safety {
        Safety::Unsafe(token) => Some(token.span),
        Safety::Safe(token) => Some(token.span),
        Safety::Default => None,
    };
    refuse(
        safety,
        "a task cannot be `unsafe`: make it safe, with the `unsafe` block inside",
    );
    refuse(
        sig.abi.as_ref().map(|abi| abi.extern_token.span),
        "a task cannot be `extern`: call that function from a task",
    );
    refuse(
        sig.variadic.as_ref().map(Spanned::span),
        "a task has a fixed number of arguments: take a `Vec`",
    );
}

fn self_by(this: &Receiver) -> Result<SelfBy> {
    match &this.kind {
        ReceiverKind::Value => Ok(SelfBy::Value),
        ReceiverKind::Reference(and, lifetime, mutability) => match (mutability, lifetime) {
            (Some(_), _) => Err(Error::new_spanned(
                quote!(#and #lifetime #mutability),
                MUTABLE_SELF,
            )),
            (None, Some(lifetime)) if lifetime.ident == "static" => {
                Err(Error::new(lifetime.span(), STATIC_REFERENCE))
            }
            (None, _) => Ok(SelfBy::Reference),
        },
        ReceiverKind::Typed(_, ty) => match peel(ty) {
            Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self") => Ok(SelfBy::Value),
            Type::Reference(TypeReference {
                mutability: Some(_), ..
            }) => Err(Error::new_spanned(ty, MUTABLE_SELF)),
            Type::Reference(reference) if matches!(peel(&reference.elem), Type::Path(path) if path.path.is_ident("Self")) => {
                Ok(SelfBy::Reference)
            }
            _ => Err(Error::new_spanned(
                ty,
                "a task takes `self` or `&self`: the worker owns a copy of the value",
            )),
        },
        _ => Err(Error::new_spanned(
            this,
            "a task takes `self` or `&self`: the worker owns a copy of the value",
        )),
    }
}

/// The owned type for an argument that is a reference, and the way back.
fn lent(reference: &TypeReference) -> Result<(Type, Lend)> {
    if reference.mutability.is_some() {
        return Err(Error::new_spanned(reference, MUTABLE_REFERENCE));
    }
    if let Some(lifetime) = reference
        .lifetime
        .as_ref()
        .filter(|lifetime| lifetime.ident == "static")
    {
        return Err(Error::new(lifetime.span(), STATIC_REFERENCE));
    }
    Ok(match peel(&reference.elem) {
        Type::Slice(slice) => {
            let elem = &slice.elem;
            (parse_quote!(::std::vec::Vec<#elem>), Lend::Slice(elem.clone()))
        }
        Type::TraitObject(object) => {
            let advice =
                "a trait object cannot be sent to another process: name a type, or a generic type parameter";
            return Err(Error::new_spanned(object, advice));
        }
        // By name only: so the owned type is asked for through the trait, in case it is another type of that name.
        Type::Path(path)
            if path
                .path
                .segments
                .last()
                .is_some_and(|last| UNSIZED.iter().any(|name| last.ident == name)) =>
        {
            let span = path.span();
            let owned = Type::Verbatim(quote_spanned!(span=> <#path as ::std::borrow::ToOwned>::Owned));
            (owned, Lend::Borrow(Box::new(Type::Path(path.clone()))))
        }
        other => (other.clone(), Lend::Reference),
    })
}

fn check_output(output: &Type, errors: &mut Option<Error>) {
    Nested {
        errors,
        advice: BORROWED_RESULT,
    }
    .visit_type(output);
    let mut lifetimes = Lifetimes(None);
    lifetimes.visit_type(output);
    if let Some(lifetime) = lifetimes.0 {
        combine(errors, Error::new(lifetime.span(), BORROWED_RESULT));
    }
}

/// Finds what no argument or result may contain: references (apart from the outermost) and `impl Trait`.
struct Nested<'a> {
    errors: &'a mut Option<Error>,
    advice: &'static str,
}

impl<'ast> Visit<'ast> for Nested<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let advice = if reference.mutability.is_some() {
            MUTABLE_REFERENCE
        } else {
            self.advice
        };
        combine(self.errors, Error::new_spanned(reference, advice));
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
        let advice = if self.advice == BORROWED_RESULT {
            "a task's result needs a type with a name: write it in place of `impl Trait`"
        } else {
            "name a generic type parameter in place of `impl Trait`, with `Serialize` and `DeserializeOwned` among its bounds"
        };
        combine(self.errors, Error::new_spanned(ty, advice));
    }

    // What these contain is not part of the value; that they are not serializable is for the compiler to say.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}
    fn visit_type_trait_object(&mut self, _: &'ast TypeTraitObject) {}
}

/// Finds the first lifetime, other than `'static` and those of references.
struct Lifetimes(Option<Lifetime>);

impl<'ast> Visit<'ast> for Lifetimes {
    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" && self.0.is_none() {
            self.0 = Some(lifetime.clone());
        }
    }

    fn visit_type_reference(&mut self, _: &'ast TypeReference) {}
    fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {}
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}
    fn visit_type_trait_object(&mut self, _: &'ast TypeTraitObject) {}
}

/// The type with `'static` for each lifetime: `Cow<'_, str>` becomes what can be decoded.
fn without_lifetimes(mut ty: Type) -> Type {
    struct Static;

    impl VisitMut for Static {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            *lifetime = Lifetime::new("'static", lifetime.span());
        }

        fn visit_type_mut(&mut self, ty: &mut Type) {
            // Their lifetimes may be bound by a `for` of their own.
            if !matches!(ty, Type::FnPtr(_) | Type::TraitObject(_)) {
                visit_mut::visit_type_mut(self, ty);
            }
        }
    }

    Static.visit_type_mut(&mut ty);
    ty
}

/// Whether `Self` occurs outside nested items, which have a `Self` of their own.
struct FindSelf(bool);

impl<'ast> Visit<'ast> for FindSelf {
    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.0 |= ident == "Self";
    }

    fn visit_item(&mut self, _: &'ast Item) {}
}

/// Types that are never there by value, by the last segment of their path.
const UNSIZED: [&str; 4] = ["str", "Path", "OsStr", "CStr"];

/// The longest tuple that serde knows.
const MOST_ARGUMENTS: usize = 16;

const TOO_MANY_ARGUMENTS: &str =
    "a task has at most 16 arguments, `self` counts: put some of them into a struct";

const MUTABLE_SELF: &str =
    "a task cannot change `self`, its worker has a copy: take `self` and return the new value";
const MUTABLE_REFERENCE: &str =
    "a task cannot change its caller's value, its worker has a copy: take it by value and return the new one";
const STATIC_REFERENCE: &str =
    "a worker's copy does not live for `'static`: take an owned value, or remove the lifetime";
const NESTED_REFERENCE: &str = "a task can borrow only a whole argument, not a part of one: \
                                take an owned type here (`String` for `&str`, `Vec<T>` for `&[T]`)";
const BORROWED_RESULT: &str = "a task's result comes from another process and cannot borrow: \
                               return an owned type (`String` for `&str`, `Vec<T>` for `&[T]`)";
