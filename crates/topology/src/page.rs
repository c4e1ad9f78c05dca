//! A tree as a page that needs nothing but a browser: nodes are dragged, added, renamed and removed, and
//! the result is saved as either form of file.

use crate::Topology;

const PAGE: &str = include_str!("page.html");
/// Where the tree goes in the page.
const MARK: &str = "\"THE TREE\"";

/// The page with the tree on it.
pub fn page(topology: &Topology) -> String {
    let word = |text: Option<&str>| match text {
        // Names and addresses hold neither quotes nor backslashes; `<` might end the script.
        Some(text) => format!("\"{}\"", text.replace('<', "\\u003c")),
        None => "null".into(),
    };
    let rows: Vec<String> = topology
        .nodes()
        .map(|node| {
            let parent = word(topology.parent(node));
            format!("[{},{parent},{}]", word(Some(node)), word(topology.place(node)))
        })
        .collect();
    PAGE.replacen(MARK, &format!("[{}]", rows.join(",\n")), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_on_the_page_and_nothing_is_fetched() {
        let page = page(&Topology::parse("a=</script>:1 b\n").unwrap());
        assert!(page.contains("[[\"a\",null,\"\\u003c/script>:1\"],\n[\"b\",\"a\",null]]"), "{page}");
        assert!(!page.contains(MARK) && page.matches("</script>").count() == 1);
        assert!(!page.contains("src=") && !page.contains("https:"));
    }
}
