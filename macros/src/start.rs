//! Writes the calls of `inparallel::private::start` and `later`.
//!
//! Types stand in them as the user wrote them, each in a call that asks for no more than that this one can travel, so that
//! the compiler points at the one that cannot.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Token, Type, parse_quote};

use crate::options::Options;
use crate::parse::{SelfBy, Task};

/// How the generated code reaches the function: the same for each call that starts or keeps it.
pub(crate) struct Route<'a> {
    pub(crate) task: &'a Task,
    pub(crate) options: &'a Options,
    /// An expression for where the task stands.
    pub(crate) module: TokenStream,
    /// The function with the user's body.
    pub(crate) inline: TokenStream,
}

impl Route<'_> {
    /// Starts the task, with `given` for its options: an expression of type `TaskFuture`.
    pub(crate) fn start(&self, given: &TokenStream) -> TokenStream {
        let krate = &self.options.krate;
        let (output, name) = (result(self.task, self.options), self.name());
        let Arguments {
            values,
            names,
            encode,
            decode,
            remote,
            ..
        } = self.arguments();
        let local = self.run(self.with_context(names.iter().map(|name| quote!(#name)).collect()));
        let start = quote! {{
            #krate::private::output::<#output>();
            #krate::private::start::<#output, _, _, _, _, _, _>(
                #given, #name, #values, #encode, #decode, |(#(#names,)*)| #local, #remote,
            )
        }};
        match &self.options.callback {
            None => start,
            Some(callback) => {
                let future = Ident::new("future", Span::mixed_site());
                quote! {
                    let #future = #start;
                    #krate::TaskFuture::on_done(&#future, #callback);
                    #future
                }
            }
        }
    }

    /// Keeps the task for later: an expression of type `Call`.
    pub(crate) fn later(&self, given: &TokenStream) -> TokenStream {
        let krate = &self.options.krate;
        let (output, name) = (result(self.task, self.options), self.name());
        let Arguments {
            values,
            encode,
            decode,
            remote,
            ..
        } = self.arguments();
        quote! {{
            #krate::private::output::<#output>();
            #krate::private::later::<#output, _, _, _, _, _>(
                #given, #name, #values, #encode, #decode, #remote,
            )
        }}
    }

    fn name(&self) -> TokenStream {
        let (krate, module) = (&self.options.krate, &self.module);
        let function = match &self.options.name {
            Some(name) => quote!(#name),
            None => {
                let name = self.task.function.sig.ident.unraw().to_string();
                quote!(#name)
            }
        };
        quote!(#krate::private::Name { module: #module, function: #function })
    }

    fn arguments(&self) -> Arguments {
        let (task, krate) = (self.task, &self.options.krate);
        let bytes = Ident::new("bytes", Span::mixed_site());
        // One entry per argument, `self` first: what the caller has, its variable in the closures, how it becomes bytes and
        // is made from them, the type that the worker has, and what the function is called with there.
        let (mut values, mut names, mut owned, mut lent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
        if let (Some(by), Some(this)) = (task.receiver, this(task)) {
            let name = Ident::new("this", Span::mixed_site());
            let ty = Ident::new("Self", this.span);
            values.push(quote!(#this));
            encoded.push(quote!(#krate::private::encode::<#ty>(&#name, #bytes)?;));
            decoded.push(quote!(#krate::private::decode::<#ty>(#bytes)?));
            lent.push(match by {
                SelfBy::Reference => quote!(&#name),
                SelfBy::Value => quote!(#name),
            });
            names.push(name);
            owned.push(quote!(Self));
        }
        for argument in &task.arguments {
            let (name, ty) = (&argument.name, argument.held(krate));
            let ((encode, value), decode) = (argument.encode(), argument.decode());
            values.push(quote!(#name));
            encoded.push(quote!(#krate::private::#encode(#value, #bytes)?;));
            decoded.push(quote!(#krate::private::#decode(#bytes)?));
            lent.push(argument.lend());
            names.push(name.clone());
            owned.push(quote!(#ty));
        }
        let remote = self.run(self.with_context(lent));
        Arguments {
            values: quote!((#(#values,)*)),
            encode: quote!(|(#(#names,)*), #bytes| { #(#encoded)* ::core::result::Result::Ok(()) }),
            decode: quote!(|#bytes| ::core::result::Result::Ok((#(#decoded,)*))),
            remote: quote!(|(#(#names,)*): (#(#owned,)*)| #remote),
            names,
        }
    }

    /// The arguments of the function itself, which may take the context of its task among them.
    fn with_context(&self, mut arguments: Vec<TokenStream>) -> Vec<TokenStream> {
        if let Some(context) = &self.task.context {
            let krate = &self.options.krate;
            let lent = quote_spanned!(context.span=> &#krate::private::context());
            arguments.insert(context.index, lent);
        }
        arguments
    }

    /// Runs the function in the worker. What is to be discarded is dropped there.
    fn run(&self, arguments: Vec<TokenStream>) -> TokenStream {
        let inline = &self.inline;
        let run = quote!(#inline(#(#arguments),*));
        match self.options.discard {
            true => quote!({ let _ = #run; }),
            false => run,
        }
    }
}

/// What `start` and `later` have in common.
struct Arguments {
    values: TokenStream,
    names: Vec<Ident>,
    encode: TokenStream,
    decode: TokenStream,
    remote: TokenStream,
}

/// What comes back from the worker.
pub(crate) fn result(task: &Task, options: &Options) -> Type {
    match options.discard {
        true => parse_quote!(()),
        false => task.output.clone(),
    }
}

/// The word `self` of a method, with the user's hygiene.
pub(crate) fn this(task: &Task) -> Option<Token![self]> {
    task.function.sig.receiver().map(|receiver| receiver.self_token)
}
