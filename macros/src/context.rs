//! The parameter `&TaskContext`, which is no argument: the worker has it.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Error, PatType, Result, Type};

use crate::parse::peel;

/// Where a function takes the context of its task.
pub(crate) struct Context {
    /// Among all parameters, `self` too.
    pub(crate) index: usize,
    pub(crate) span: Span,
}

impl Context {
    /// Reads the parameter, if it is one.
    pub(crate) fn read(index: usize, typed: &PatType) -> Result<Option<Self>> {
        match peel(&typed.ty) {
            Type::Reference(reference) if is_context(&reference.elem) => {
                let is_static = |lifetime: &&syn::Lifetime| lifetime.ident == "static";
                match reference.lifetime.as_ref().filter(is_static) {
                    _ if reference.mutability.is_some() => Err(Error::new_spanned(&typed.ty, NOT_SHARED)),
                    Some(lifetime) => Err(Error::new(lifetime.span(), STATIC)),
                    None => Ok(Some(Context {
                        index,
                        span: typed.ty.span(),
                    })),
                }
            }
            ty if is_context(ty) => Err(Error::new_spanned(&typed.ty, NOT_SHARED)),
            _ => Ok(None),
        }
    }
}

/// By name: the macro knows no types.
fn is_context(ty: &Type) -> bool {
    match peel(ty) {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == "TaskContext"),
        _ => false,
    }
}

/// What is said about the second one.
pub(crate) const TWICE: &str = "a task has one context: take `&TaskContext` once";

const NOT_SHARED: &str = "a task borrows its context: take `&TaskContext`";
const STATIC: &str = "the context of a task ends with it: take `&TaskContext`, without the lifetime";
