//! Generic parameters of a function, for the struct and the methods that stand for it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::visit::Visit;
use syn::{
    GenericParam, Generics, Lifetime, PredicateType, Token, TypeParamBound, WherePredicate, parse_quote,
};

/// The generics of a function, told apart: those of the struct, and the lifetimes, which stay with the methods.
pub(crate) struct Split {
    pub(crate) ty: Generics,
    pub(crate) method: Generics,
}

impl Split {
    pub(crate) fn of(generics: &Generics) -> Self {
        let lifetimes: Vec<_> = generics.lifetimes().map(|param| param.lifetime.clone()).collect();
        let (mut ty, mut method) = (Generics::default(), Generics::default());
        for param in &generics.params {
            match param {
                GenericParam::Lifetime(_) => method.params.push(param.clone()),
                GenericParam::Const(_) => ty.params.push(param.clone()),
                GenericParam::Type(param) => {
                    let mut param = param.clone();
                    let (with, without) = divide(&param.bounds, &lifetimes);
                    param.bounds = without;
                    if !with.is_empty() {
                        let ident = &param.ident;
                        method
                            .make_where_clause()
                            .predicates
                            .push(parse_quote!(#ident: #with));
                    }
                    ty.params.push(GenericParam::Type(param));
                }
            }
        }
        for predicate in generics.where_clause.iter().flat_map(|clause| &clause.predicates) {
            match predicate {
                WherePredicate::Type(predicate)
                    if !mentions(&lifetimes, |find| find.visit_type(&predicate.bounded_ty)) =>
                {
                    let (with, without) = divide(&predicate.bounds, &lifetimes);
                    for (bounds, home) in [(with, &mut method), (without, &mut ty)] {
                        if !bounds.is_empty() {
                            let predicate = PredicateType {
                                bounds,
                                ..predicate.clone()
                            };
                            home.make_where_clause()
                                .predicates
                                .push(WherePredicate::Type(predicate));
                        }
                    }
                }
                other => method.make_where_clause().predicates.push(other.clone()),
            }
        }
        Split { ty, method }
    }
}

/// `::<T, N>`, without lifetimes, which may not be named where they are late bound.
pub(crate) fn turbofish(generics: &Generics) -> Option<TokenStream> {
    let names: Vec<_> = generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    (!names.is_empty()).then(|| quote!(::<#(#names),*>))
}

type Bounds = Punctuated<TypeParamBound, Token![+]>;

/// The bounds that mention one of the lifetimes, and those that do not.
fn divide(bounds: &Bounds, lifetimes: &[Lifetime]) -> (Bounds, Bounds) {
    bounds
        .iter()
        .cloned()
        .partition(|bound| mentions(lifetimes, |find| find.visit_type_param_bound(bound)))
}

/// Whether what `walk` visits mentions one of the lifetimes.
fn mentions(lifetimes: &[Lifetime], walk: impl FnOnce(&mut Find<'_>)) -> bool {
    let mut find = Find {
        lifetimes,
        found: false,
    };
    walk(&mut find);
    find.found
}

struct Find<'a> {
    lifetimes: &'a [Lifetime],
    found: bool,
}

impl<'ast> Visit<'ast> for Find<'_> {
    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        self.found |= self.lifetimes.contains(lifetime);
    }
}
