//! The operation attribute of the Rust interface. Use it through the crate `mutirao`.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, LitStr, Type, parse_macro_input};

/// Makes a function an operation: it stays callable as it is, and can be given to `Pool::call` and `Pool::map`.
///
/// Arguments and result are values that `serde` can encode; there are at most eight arguments. Options:
/// - `repeatable`: the function may run more than once for one call without harm, so a call whose machine is
///   lost runs again elsewhere, and a slow one is started a second time.
/// - `name = "..."`: its name for other machines and for people; by default its path in the program.
#[proc_macro_attribute]
pub fn operation(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut chosen = Options::default();
    let parser = syn::meta::parser(|meta| chosen.take(&meta));
    parse_macro_input!(options with parser);
    let function = parse_macro_input!(item as ItemFn);
    expand(&chosen, &function)
        .unwrap_or_else(|error| {
            // The function itself stays, so that only the real mistake is reported.
            let error = error.into_compile_error();
            quote!(#function #error)
        })
        .into()
}

#[derive(Default)]
struct Options {
    repeatable: bool,
    name: Option<LitStr>,
}

impl Options {
    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.path.is_ident("repeatable") {
            self.repeatable = true;
            Ok(())
        } else if meta.path.is_ident("name") {
            self.name = Some(meta.value()?.parse()?);
            Ok(())
        } else {
            Err(meta.error("expected `repeatable` or `name = \"...\"`"))
        }
    }
}

const ARGUMENTS_MAX: usize = 8;

fn expand(options: &Options, function: &ItemFn) -> syn::Result<Tokens> {
    let signature = &function.sig;
    let refuse = |span: Span, why: &str| Err(Error::new(span, why));
    if let Some(token) = &signature.asyncness {
        return refuse(token.span(), "an operation cannot be async: its worker runs one call at a time");
    }
    if let Some(token) = &signature.unsafety {
        return refuse(
            token.span(),
            "an operation cannot be unsafe: it is called with arguments from elsewhere",
        );
    }
    if !signature.generics.params.is_empty() {
        return refuse(
            signature.generics.span(),
            "an operation cannot be generic: its worker must know the types; wrap it in a function that is not",
        );
    }
    if signature.variadic.is_some() || signature.inputs.len() > ARGUMENTS_MAX {
        return refuse(signature.inputs.span(), "an operation takes at most eight arguments; use a struct");
    }
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                return refuse(receiver.span(), "an operation is a free function; it cannot take `self`");
            }
            FnArg::Typed(argument) if matches!(*argument.ty, Type::Reference(_)) => {
                return refuse(
                    argument.ty.span(),
                    "an operation takes owned values (`String`, not `&str`), since they come from another machine",
                );
            }
            FnArg::Typed(_) => {}
        }
    }
    let ident = &signature.ident;
    let repeatable = options.repeatable;
    let name = match &options.name {
        Some(name) => quote!(#name),
        None => quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#ident))),
    };
    let run = format_ident!("run_{}", signature.inputs.len());
    Ok(quote! {
        #function
        const _: () = {
            #[::mutirao::__private::linkme::distributed_slice(::mutirao::__private::OPERATIONS)]
            #[linkme(crate = ::mutirao::__private::linkme)]
            static ENTRY: ::mutirao::__private::Registered = ::mutirao::__private::Registered {
                name: #name,
                repeatable: #repeatable,
                key: || ::mutirao::__private::key_of(&#ident),
                run: |argument, result| ::mutirao::__private::#run(#ident, argument, result),
            };
        };
    })
}
