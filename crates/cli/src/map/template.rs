//! Commands with places for arguments.

/// A text in which arguments are put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// All arguments, or the one of this position; negative ones count from the last.
    Argument(Option<i32>, Form),
    /// The number of the job.
    Sequence,
    /// The number of its place among those that run.
    Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    WithoutExtension,
    Name,
    Directory,
    NameWithoutExtension,
}

/// What a template is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The arguments.
    pub arguments: &'a [Vec<u8>],
    /// The number of the job, from 1.
    pub sequence: u64,
    /// The number of its place among those that run, from 1.
    pub place: u32,
}

impl Template {
    /// Reads a template; what only looks like a place for an argument is text.
    pub fn parse(text: &[u8]) -> Template {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            let end = (byte == b'{').then(|| rest.iter().position(|&byte| byte == b'}')).flatten();
            match end.and_then(|end| Some((special(&rest[1..end])?, end))) {
                Some((part, end)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(part);
                    rest = &rest[end + 1..];
                }
                None => {
                    plain.push(byte);
                    rest = after;
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Template { parts }
    }

    /// A command: if nothing is to be put in it, its arguments are put at its end.
    pub fn command(text: &[u8]) -> Template {
        let mut template = Template::parse(text);
        if template.parts.iter().all(|part| matches!(part, Part::Text(_))) {
            template.parts.push(Part::Text(b" ".to_vec()));
            template.parts.push(Part::Argument(None, Form::Whole));
        }
        template
    }

    /// Whether it says the place of a job among those that run.
    pub fn names_place(&self) -> bool {
        self.parts.contains(&Part::Place)
    }

    /// With the arguments as they are.
    pub fn fill(&self, filling: Filling<'_>) -> Vec<u8> {
        self.fill_with(filling, |argument, out| out.extend_from_slice(argument))
    }

    /// With the arguments quoted, so that a shell takes each for one word.
    pub fn fill_quoted(&self, filling: Filling<'_>) -> Vec<u8> {
        self.fill_with(filling, quote)
    }

    fn fill_with(&self, filling: Filling<'_>, put: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Sequence => out.extend_from_slice(filling.sequence.to_string().as_bytes()),
                Part::Place => out.extend_from_slice(filling.place.to_string().as_bytes()),
                Part::Argument(None, form) => {
                    for (index, argument) in filling.arguments.iter().enumerate() {
                        if index > 0 {
                            out.push(b' ');
                        }
                        put(form.of(argument), &mut out);
                    }
                }
                // Where there are fewer arguments, nothing is put.
                Part::Argument(Some(position), form) => {
                    if let Some(argument) = at(filling.arguments, *position) {
                        put(form.of(argument), &mut out);
                    }
                }
            }
        }
        out
    }
}

fn at(arguments: &[Vec<u8>], position: i32) -> Option<&Vec<u8>> {
    let distance = usize::try_from(position.unsigned_abs()).ok()?;
    match position > 0 {
        true => arguments.get(distance - 1),
        false => arguments.get(arguments.len().checked_sub(distance)?),
    }
}

fn special(inside: &[u8]) -> Option<Part> {
    match inside {
        b"#" => return Some(Part::Sequence),
        b"%" => return Some(Part::Place),
        _ => {}
    }
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
    let (position, form) = inside.split_at(digits);
    let position = match position {
        b"" => None,
        digits => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok().filter(|&position: &i32| position != 0)?)
        }
    };
    let form = match form {
        b"" => Form::Whole,
        b"." => Form::WithoutExtension,
        b"/" => Form::Name,
        b"//" => Form::Directory,
        b"/." => Form::NameWithoutExtension,
        _ => return None,
    };
    Some(Part::Argument(position, form))
}

impl Form {
    fn of(self, argument: &[u8]) -> &[u8] {
        match self {
            Form::Whole => argument,
            Form::WithoutExtension => without_extension(argument),
            Form::Name => name(argument),
            Form::Directory => {
                let end = argument.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
                match argument[..end].iter().rposition(|&byte| byte == b'/') {
                    None if end == 0 && !argument.is_empty() => b"/",
                    None => b".",
                    Some(0) => b"/",
                    Some(slash) => &argument[..slash],
                }
            }
            Form::NameWithoutExtension => without_extension(name(argument)),
        }
    }
}

fn name(argument: &[u8]) -> &[u8] {
    argument.iter().rposition(|&byte| byte == b'/').map_or(argument, |slash| &argument[slash + 1..])
}

fn without_extension(argument: &[u8]) -> &[u8] {
    let stop = argument.iter().rposition(|&byte| byte == b'.' || byte == b'/');
    stop.filter(|&stop| argument[stop] == b'.').map_or(argument, |dot| &argument[..dot])
}

/// Writes `word` so that a shell reads it as one word.
pub fn quote(word: &[u8], out: &mut Vec<u8>) {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/".contains(byte);
    if !word.is_empty() && word.iter().all(harmless) {
        return out.extend_from_slice(word);
    }
    out.push(b'\'');
    for &byte in word {
        match byte {
            // Out of the quotes, quoted otherwise, and in again.
            b'\'' => out.extend_from_slice(b"'\"'\"'"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(template: &str, arguments: &[&str]) -> String {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        let filling = Filling { arguments: &arguments, sequence: 7, place: 2 };
        String::from_utf8(Template::command(template.as_bytes()).fill_quoted(filling)).unwrap()
    }

    #[test]
    fn each_form_of_an_argument_is_what_it_is_in_gnu_parallel() {
        let all = "{} {.} {/} {//} {/.} {#} {%}";
        let cases = [
            (
                "dir.d/sub/file.tar.gz",
                "dir.d/sub/file.tar.gz dir.d/sub/file.tar file.tar.gz dir.d/sub file.tar 7 2",
            ),
            ("plain", "plain plain plain . plain 7 2"),
            (".hid", ".hid '' .hid . '' 7 2"),
            ("dir.x/noext", "dir.x/noext dir.x/noext noext dir.x noext 7 2"),
            ("/abs", "/abs /abs abs / abs 7 2"),
            ("a/", "a/ a/ '' . '' 7 2"),
        ];
        for (argument, expected) in cases {
            assert_eq!(filled(all, &[argument]), expected);
        }
    }

    #[test]
    fn arguments_are_put_by_position_and_at_the_end_if_nowhere_else() {
        assert_eq!(filled("echo", &["a", "b"]), "echo a b");
        assert_eq!(filled("echo {#}", &["a"]), "echo 7");
        assert_eq!(filled("echo {2}-{1} {}", &["a", "b"]), "echo b-a a b");
        assert_eq!(filled("echo {-1} {-2}", &["a", "b"]), "echo b a");
        assert_eq!(filled("echo {3}", &["a"]), "echo ");
        assert_eq!(filled("{1/.}={2//}", &["d/a.b", "e/f.g"]), "a=e");
        assert_eq!(filled("'{}{.}' x{1}y", &["p q.z"]), "''p q.z''p q'' x'p q.z'y");
    }

    #[test]
    fn other_braces_are_text() {
        for text in ["awk '{print $1}'", "{a,b}", "${HOME}", "{0}", "{", "{1-2}"] {
            let template = Template::parse(text.as_bytes());
            let filling = Filling { arguments: &[], sequence: 1, place: 1 };
            assert_eq!(template.fill(filling), text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_what_was_quoted(word in proptest::collection::vec(1u8..=255, 0..30)) {
            let mut text = b"printf %s ".to_vec();
            quote(&word, &mut text);
            let text = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(text);
            let said = std::process::Command::new("/bin/sh").arg("-c").arg(text).output().unwrap();
            prop_assert_eq!(said.stdout, word);
        }

        #[test]
        fn no_text_upsets_the_reader(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            Template::parse(&text);
        }
    }
}
