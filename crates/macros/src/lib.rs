//! `#[bpfsim::test]`. Its documentation is where it is exported: crate `bpfsim`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ItemFn, Lit, Meta, Result, Token, parse_quote};

/// Orders of probabilistic concurrency testing, unless `random` says how many.
const DRAWN: u64 = 1_000;

/// See `bpfsim::test`.
#[proc_macro_attribute]
pub fn test(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let item = syn::parse_macro_input!(item as ItemFn);
    let expanded = expand(args.into(), &item);
    expanded
        .unwrap_or_else(|error| {
            let error = error.to_compile_error();
            quote!(#error #item)
        })
        .into()
}

fn expand(args: TokenStream, item: &ItemFn) -> Result<TokenStream> {
    let sig = &item.sig;
    if let Some(asyncness) = &sig.asyncness {
        return Err(Error::new(asyncness.span(), "a test is no async function"));
    }
    if sig.inputs.len() != 1 {
        return Err(Error::new(
            sig.inputs.span(),
            "a test takes the machine: fn(sim: &bpfsim::Sim) -> bpfsim::Result<()>",
        ));
    }
    if !sig.generics.params.is_empty() {
        return Err(Error::new(
            sig.generics.span(),
            "a test has no parameters of type",
        ));
    }
    let name = &sig.ident;
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    let args = syn::parse::Parser::parse2(parse, args)?;
    let mut tests = Vec::new();
    for arg in &args {
        tests.push(test_of(name, arg)?);
    }
    if tests.is_empty() {
        tests.push(quote!(#[test] fn usual() -> ::bpfsim::TestResult {
            ::bpfsim::check(super::#name)
        }));
    }
    Ok(quote! {
        #[cfg(test)]
        #item

        #[cfg(test)]
        mod #name {
            #(#tests)*
        }
    })
}

/// The test that one argument asks for.
fn test_of(name: &syn::Ident, arg: &Meta) -> Result<TokenStream> {
    let word = arg.path().get_ident().map(ToString::to_string);
    let word = word.unwrap_or_default();
    let call: Expr = match (word.as_str(), number(arg)?) {
        ("usual", None) => parse_quote!(::bpfsim::check(super::#name)),
        ("random", Some(n)) => parse_quote!(::bpfsim::check_random(super::#name, #n)),
        ("pct", Some(depth)) => {
            let depth = u32::try_from(depth);
            let depth = depth.map_err(|_| Error::new(arg.span(), "no such depth"))?;
            parse_quote!(::bpfsim::check_pct(super::#name, #DRAWN, #depth))
        }
        ("exhaustive", None) => parse_quote!(::bpfsim::check_exhaustive(super::#name)),
        ("usual" | "exhaustive", Some(_)) => {
            return Err(Error::new(arg.span(), format!("`{word}` takes no number")));
        }
        ("random", None) => {
            return Err(Error::new(arg.span(), "how many orders: `random = 1000`"));
        }
        ("pct", None) => return Err(Error::new(arg.span(), "of which depth: `pct = 3`")),
        _ => {
            return Err(Error::new(
                arg.span(),
                "one of `usual`, `random = N`, `pct = DEPTH`, `exhaustive`",
            ));
        }
    };
    let test = format_ident!("{word}");
    Ok(quote!(#[test] fn #test() -> ::bpfsim::TestResult { #call }))
}

/// What stands behind `=`.
fn number(arg: &Meta) -> Result<Option<u64>> {
    match arg {
        Meta::Path(_) => Ok(None),
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(syn::ExprLit {
                lit: Lit::Int(n), ..
            }) => n.base10_parse().map(Some),
            other => Err(Error::new(other.span(), "a number")),
        },
        Meta::List(list) => Err(Error::new(list.span(), "written `name = number`")),
    }
}

#[cfg(test)]
mod tests {
    use super::expand;
    use syn::ItemFn;

    fn expanded(args: &str, item: &str) -> std::result::Result<String, String> {
        let item: ItemFn = syn::parse_str(item).unwrap();
        let tokens = expand(args.parse().unwrap(), &item);
        tokens.map(|t| t.to_string()).map_err(|e| e.to_string())
    }

    const TEST: &str = "fn t(sim: &Sim) -> Result<()> { sim.finish() }";

    #[core::prelude::v1::test]
    fn one_test_for_each_argument() {
        let text = expanded("random = 7, pct = 3, exhaustive, usual", TEST).unwrap();
        for call in [
            "check_random (super :: t , 7u64)",
            "check_pct (super :: t , 1000u64 , 3u32)",
        ] {
            assert!(text.contains(call), "{text}");
        }
        assert_eq!(text.matches("# [test]").count(), 4);
        assert_eq!(expanded("", TEST).unwrap().matches("# [test]").count(), 1);
    }

    #[core::prelude::v1::test]
    fn what_is_wrong_is_said() {
        for (args, item, message) in [
            ("randon = 7", TEST, "one of `usual`"),
            ("random", TEST, "how many orders"),
            ("pct", TEST, "of which depth"),
            ("exhaustive = 3", TEST, "takes no number"),
            ("random = \"7\"", TEST, "a number"),
            ("random(7)", TEST, "name = number"),
            ("", "fn t() {}", "takes the machine"),
            ("", "async fn t(sim: &Sim) {}", "no async"),
        ] {
            let error = expanded(args, item).unwrap_err();
            assert!(error.contains(message), "{args}: {error}");
        }
    }
}
