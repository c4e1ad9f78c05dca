//! What differs between two short texts, line by line.

/// Beyond so many pairs of lines the texts count as different altogether.
const PAIRS_MAX: usize = 4_000_000;

/// The lines of `after` that are not in `before` with `+ `, those only in `before` with `- `, in order.
/// Lines in common are left out.
pub fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let (before, after) = (&before[head..], &after[head..]);
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);
    let mut text = String::new();
    let mut put =
        |sign: char, line: &str| text.extend([sign, ' '].into_iter().chain(line.chars()).chain(['\n']));
    let (mut i, mut j) = (0, 0);
    if before.len().saturating_mul(after.len()) <= PAIRS_MAX {
        let common = common_lengths(before, after);
        while i < before.len() && j < after.len() {
            if before[i] == after[j] {
                (i, j) = (i + 1, j + 1);
            } else if common[i + 1][j] >= common[i][j + 1] {
                put('-', before[i]);
                i += 1;
            } else {
                put('+', after[j]);
                j += 1;
            }
        }
    }
    before[i..].iter().for_each(|line| put('-', line));
    after[j..].iter().for_each(|line| put('+', line));
    text
}

/// For each pair of places how many lines the rests have in common, in order.
fn common_lengths(before: &[&str], after: &[&str]) -> Vec<Vec<u16>> {
    let mut common = vec![vec![0u16; after.len() + 1]; before.len() + 1];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            common[i][j] = match before[i] == after[j] {
                true => common[i + 1][j + 1].saturating_add(1),
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_said() {
        assert_eq!(diff("a\nb\nc\n", "a\nb\nc\n"), "");
        assert_eq!(diff("a\nb\nc\nd\n", "a\nB\nc\nnew\nd\n"), "- b\n+ B\n+ new\n");
        assert_eq!(diff("", "a\n"), "+ a\n");
        assert_eq!(diff("a\nb\n", ""), "- a\n- b\n");
        let long = |line: &str| format!("{line}\n").repeat(5000);
        assert_eq!(diff(&long("x"), &long("y")).lines().count(), 10_000);
    }
}
