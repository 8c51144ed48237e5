//! Writes what replaces the function. What starts a task is written by `start`.
//!
//! Generated variables have the hygiene of the macro (`mixed_site`), so that an argument may have any name.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Block, FnArg, GenericParam, Ident, Receiver, ReturnType, Signature, Stmt, parse_quote,
    parse_quote_spanned,
};

use crate::attributes::{self, Place};
use crate::generics::{Split, turbofish};
use crate::options::Options;
use crate::parse::Task;
use crate::start::{Route, result, this};

/// The items that replace the function.
pub(crate) fn expand(task: &Task, options: &Options) -> TokenStream {
    if options.associated || task.receiver.is_some() || task.mentions_self {
        associated(task, options)
    } else {
        free(task, options)
    }
}

/// A function, and a struct of the same name for what else can be done with it.
fn free(task: &Task, options: &Options) -> TokenStream {
    let krate = &options.krate;
    let (vis, sig) = (&task.function.vis, &task.function.sig);
    let (name, generics, body) = (&sig.ident, &sig.generics, &task.function.block);
    let text = name.unraw().to_string();
    let ty_name = generated(name);
    let quiet = quiet();
    let [call, inline, with, other] = [Place::Call, Place::Inline, Place::With, Place::Other]
        .map(|place| attributes::of(&task.function.attrs, place));

    let start_sig = giving("TaskFuture", task, options);
    let arguments: Vec<_> = task.arguments.iter().map(|argument| &argument.name).collect();
    let turbofish = turbofish(generics);
    let (used, used_later) = (used(quote!(#name #turbofish)), used(quote!(Self::later)));
    let inline_body = after(&used, body);
    let start_body = in_place_of(body, quote!(#name #turbofish::with().call(#(#arguments),*)));
    let Split { ty, method } = Split::of(generics);
    let (impl_generics, ty_generics, bounds) = ty.split_for_impl();
    let inline_sig = Signature {
        ident: parse_quote!(inline),
        generics: method.clone(),
        ..sig.clone()
    };
    let mut call_sig = Signature {
        ident: parse_quote!(call),
        generics: method.clone(),
        ..start_sig.clone()
    };
    call_sig.inputs.insert(0, parse_quote!(self));
    let later_sig = Signature {
        ident: parse_quote!(later),
        generics: method,
        ..giving("Call", task, options)
    };
    // A method cannot have the name of a function beside it; and `later` is the one that is passed around as a path.
    let mut call_later_sig = Signature {
        ident: parse_quote!(call_later),
        ..later_sig.clone()
    };
    call_later_sig.inputs.insert(0, parse_quote!(self));

    // The struct has no bounds, so that the impls of `Clone` and `Debug` need none.
    let unbounded = ty.params.iter().map(|param| match param {
        GenericParam::Type(param) => {
            let ident = &param.ident;
            quote!(#ident: ?::core::marker::Sized)
        }
        other => quote!(#other),
    });
    let unbounded: Vec<_> = unbounded.collect();
    let types: Vec<_> = ty.type_params().map(|param| &param.ident).collect();
    let marker = (!types.is_empty())
        .then(|| quote!(#[doc(hidden)] marker: ::core::marker::PhantomData<fn() -> (#(*const #types,)*)>,));
    let no_marker = (!types.is_empty()).then(|| quote!(marker: ::core::marker::PhantomData,));

    let struct_doc = format!(
        "The task [`{text}`](fn@{text}): `{text}::with()` sets options for one call, `{text}::later(..)` makes a `Call` \
         that is not started, `{text}::inline(..)` is a plain call."
    );
    let inline_doc = format!("Calls `{text}` here and now, in this process.");
    let call_doc = format!("Starts `{text}` with these options.");
    let later_doc = format!("Makes a call of `{text}`, to be started later or by a pool.");
    let call_later_doc =
        format!("Makes a call of `{text}` with these options, to be started later or by a pool.");
    let defaults = options.defaults(&text);
    let route = Route {
        task,
        options,
        module: quote!(::core::module_path!()),
        inline: quote!(Self::inline),
    };
    let (start, later) = (
        route.start(&quote!(self.options)),
        route.later(&quote!(self.options)),
    );

    quote! {
        #quiet
        #(#call)*
        #vis #start_sig #start_body

        #quiet
        #(#other)*
        #[doc = #struct_doc]
        #[must_use = "options do nothing until `call`"]
        #vis struct #ty_name <#(#unbounded),*> {
            #[doc(hidden)]
            options: #krate::Options,
            #marker
        }

        #quiet
        #(#other)*
        impl #impl_generics #name #ty_generics #bounds {
            #[allow(unreachable_pub)]
            #(#inline)*
            #[doc = #inline_doc]
            #vis #inline_sig #inline_body

            #quiet
            #(#with)*
            /// The task's options, to be changed for one call.
            #[inline]
            #vis fn with() -> Self {
                #used
                #used_later
                Self { options: #defaults, #no_marker }
            }

            #krate::private::task_options! {}

            #quiet
            #(#other)*
            #[doc = #call_doc]
            #vis #call_sig {
                #start
            }

            #quiet
            #(#with)*
            #[doc = #later_doc]
            #[inline]
            #vis #later_sig {
                Self::with().call_later(#(#arguments),*)
            }

            #quiet
            #(#other)*
            #[doc = #call_later_doc]
            #[inline]
            #vis #call_later_sig {
                #later
            }
        }

        #(#other)*
        #[automatically_derived]
        impl <#(#unbounded),*> ::core::clone::Clone for #name #ty_generics {
            fn clone(&self) -> Self {
                Self { options: ::core::clone::Clone::clone(&self.options), #no_marker }
            }
        }

        #(#other)*
        #[automatically_derived]
        impl <#(#unbounded),*> ::core::fmt::Debug for #name #ty_generics {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                formatter.debug_struct(#text).field("options", &self.options).finish()
            }
        }
    }
}

/// Functions side by side: an `impl` has no room for anything else.
fn associated(task: &Task, options: &Options) -> TokenStream {
    let krate = &options.krate;
    let (vis, sig) = (&task.function.vis, &task.function.sig);
    let (name, generics, body) = (&sig.ident, &sig.generics, &task.function.block);
    let text = name.unraw().to_string();
    let inline_name = generated(&format_ident!("{name}_inline"));
    let with_name = generated(&format_ident!("{name}_with"));
    let later_name = generated(&format_ident!("{name}_later"));
    let defaults_name = generated(&format_ident!("__{name}_defaults"));
    let quiet = quiet();
    let [call, inline, with, other] = [Place::Call, Place::Inline, Place::With, Place::Other]
        .map(|place| attributes::of(&task.function.attrs, place));

    let this = this(task).map(|this| quote!(#this,));
    let arguments: Vec<_> = task.arguments.iter().map(|argument| &argument.name).collect();
    let turbofish = turbofish(generics);
    let inline_doc = format!("Calls [`{text}`](Self::{text}) here and now, in this process.");
    let with_doc =
        format!("Starts [`{text}`](Self::{text}) with these options, and its own where these say nothing.");
    let later_doc = format!("Makes a call of [`{text}`](Self::{text}), to be started later or by a pool.");
    let defaults = options.defaults(&text);
    let used_later = used(quote!(Self::#later_name #turbofish));
    let used = used(quote!(Self::#name #turbofish));
    let inline_body = after(&used, body);
    let start_body = in_place_of(
        body,
        quote!(Self::#with_name #turbofish (#this #krate::Options::new(), #(#arguments),*)),
    );
    let given = Ident::new("options", Span::mixed_site());
    let start_sig = giving("TaskFuture", task, options);
    let later_sig = Signature {
        ident: later_name.clone(),
        ..giving("Call", task, options)
    };
    let inline_sig = Signature {
        ident: inline_name.clone(),
        ..sig.clone()
    };
    let mut with_sig = Signature {
        ident: with_name.clone(),
        ..start_sig.clone()
    };
    with_sig
        .inputs
        .insert(usize::from(this.is_some()), parse_quote!(#given: #krate::Options));
    let route = Route {
        task,
        options,
        module: quote!(::core::any::type_name::<Self>()),
        inline: quote!(Self::#inline_name #turbofish),
    };
    let start = route.start(&quote!(#krate::Options::or(#given, Self::#defaults_name())));
    let later = route.later(&quote!(Self::#defaults_name()));

    quote! {
        #quiet
        #(#call)*
        #vis #start_sig #start_body

        #[allow(unreachable_pub)]
        #(#inline)*
        #[doc = #inline_doc]
        #vis #inline_sig #inline_body

        #quiet
        #(#with)*
        #[doc = #with_doc]
        #vis #with_sig {
            #used
            #used_later
            #start
        }

        #quiet
        #(#with)*
        #[doc = #later_doc]
        #[inline]
        #vis #later_sig {
            #used
            #later
        }

        #quiet
        #(#other)*
        #[doc(hidden)]
        #[inline]
        fn #defaults_name() -> #krate::Options {
            #defaults
        }
    }
}

/// The function's signature, such that it returns a `TaskFuture` or a `Call`: without patterns, `mut` and the context.
///
/// It keeps the user's spans from end to end, else lints about the function would be taken for the macro's own affair,
/// and an unused one would not be reported.
fn giving(handle: &str, task: &Task, options: &Options) -> Signature {
    let mut sig = task.function.sig.clone();
    let span = match &sig.output {
        ReturnType::Default => sig.paren_token.span.close(),
        ReturnType::Type(_, output) => output.span(),
    };
    let (krate, output) = (&options.krate, result(task, options));
    let handle = Ident::new(handle, span);
    sig.output = parse_quote_spanned!(span=> -> #krate::#handle<#output>);
    let receiver = task.function.sig.receiver().cloned().map(|receiver| {
        FnArg::Receiver(Receiver {
            mutability: None,
            ..receiver
        })
    });
    let arguments = task.arguments.iter().map(|argument| {
        let (name, declared) = (&argument.name, &argument.declared);
        parse_quote!(#name: #declared)
    });
    sig.inputs = receiver.into_iter().chain(arguments).collect();
    sig
}

/// Makes a use of the generated functions a use of the task and of each other, else they would be reported as never used.
fn used(path: TokenStream) -> Stmt {
    parse_quote!(#[allow(deprecated)] let _ = #path;)
}

/// The user's body, after a statement.
fn after(statement: &Stmt, body: &Block) -> Block {
    let mut body = body.clone();
    body.stmts.insert(0, statement.clone());
    body
}

/// Another body, with the braces of the function's.
fn in_place_of(body: &Block, code: TokenStream) -> Group {
    let mut group = Group::new(Delimiter::Brace, code);
    group.set_span(body.brace_token.span.join());
    group
}

/// The name as one that the macro made up: it is found as any other, and lints about it are not reported to the user.
fn generated(name: &Ident) -> Ident {
    let mut name = name.clone();
    name.set_span(Span::mixed_site().located_at(name.span()));
    name
}

/// Keeps lints about a signature to the one function that has the user's body.
fn quiet() -> TokenStream {
    quote!(#[allow(deprecated, clippy::all, clippy::pedantic, clippy::nursery)])
}
