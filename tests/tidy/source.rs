//! A Rust file as `tidy` sees it: lines with code and comments told apart, and its items.
//!
//! This is no parser. It knows comments, strings and braces, which is enough for rules about
//! conventions, and it has no dependencies.

/// One file.
#[derive(Debug)]
pub struct Source {
    /// The path from the root of the repository.
    pub path: String,
    pub lines: Vec<Line>,
    /// The functions with bodies.
    pub fns: Vec<Fn>,
    /// The names of the modules that are in other files and exist for tests only.
    pub test_mods: Vec<String>,
}

/// One line of a file.
#[derive(Debug, Default)]
pub struct Line {
    pub raw: String,
    /// The code, without what comments and strings hold.
    pub code: String,
    /// The text of the comment, or nothing.
    pub comment: String,
    /// Whether the line is inside an item that exists for tests only.
    pub is_test: bool,
    /// The number of modules of this very file around the line.
    pub inline_mods: usize,
}

/// One function.
#[derive(Debug)]
pub struct Fn {
    pub name: String,
    /// The type of the inherent impl that it belongs to.
    pub owner: Option<String>,
    pub is_pub: bool,
    /// Whether it exists for tests only, or with a feature only.
    pub is_extra: bool,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Self {
        let lines = split_lines(text);
        let mut source =
            Self { path: path.to_owned(), lines, fns: Vec::new(), test_mods: Vec::new() };
        source.find_items();
        source
    }

    /// The module of the crate that the file belongs to, or `None` outside `src` and at its root.
    pub fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib").then_some(module)
    }

    /// How many `super`s lead from the top of this file to the root of the crate.
    pub fn depth(&self) -> usize {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let parts = inner.split('/').count();
        if inner.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// The paths of files that a test-only module of this file may have.
    pub fn test_paths(&self) -> impl Iterator<Item = String> + '_ {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let dir = if matches!(stem, "mod" | "lib" | "main") {
            dir.to_owned()
        } else {
            format!("{dir}/{stem}")
        };
        self.test_mods
            .iter()
            .flat_map(move |name| [format!("{dir}/{name}.rs"), format!("{dir}/{name}/")])
    }

    /// Walks the braces. A block is described by the text before it, back to the previous item.
    fn find_items(&mut self) {
        let mut scopes: Vec<Scope> = Vec::new();
        let mut header = String::new();
        for index in 0..self.lines.len() {
            let mut is_test = scopes.iter().any(|scope| scope.is_test);
            self.lines[index].inline_mods = scopes.iter().filter(|scope| scope.is_mod).count();
            for c in self.lines[index].code.clone().chars() {
                match c {
                    '{' => {
                        let scope = self.enter(&header, &scopes);
                        is_test |= scope.is_test;
                        scopes.push(scope);
                        header.clear();
                    }
                    '}' => {
                        // A macro may be given a function without its body.
                        if scopes.last().is_some_and(|scope| scope.is_macro) {
                            self.enter(&header, &scopes);
                        }
                        scopes.pop();
                        header.clear();
                    }
                    // Not the one in the type of an array.
                    ';' if header.matches('[').count() == header.matches(']').count() => {
                        let (attributes, item) = split_attributes(&header);
                        if let (true, Some(name)) = (is_for_tests(attributes), mod_name(item)) {
                            self.test_mods.push(name.to_owned());
                        }
                        header.clear();
                    }
                    _ => header.push(c),
                }
            }
            header.push(' ');
            self.lines[index].is_test = is_test;
        }
    }

    fn enter(&mut self, header: &str, scopes: &[Scope]) -> Scope {
        let (attributes, item) = split_attributes(header);
        let outer = scopes.last();
        let is_test = is_for_tests(attributes) || outer.is_some_and(|scope| scope.is_test);
        let is_extra = is_test
            || attributes.contains("#[test]")
            || attributes.contains("cfg(") && attributes.contains("feature")
            || outer.is_some_and(|scope| scope.is_extra);
        let is_macro = item.trim_end().ends_with('!');
        if let Some(name) = fn_name(item) {
            self.fns.push(Fn {
                name: name.to_owned(),
                owner: outer.and_then(|scope| scope.owner.clone()),
                is_pub: item.starts_with("pub "),
                is_extra,
            });
        }
        // What a macro is given belongs to the impl around it.
        let around = || outer.filter(|_| is_macro).and_then(|scope| scope.owner.clone());
        let owner = impl_owner(item).or_else(around);
        Scope { is_test, is_extra, is_macro, is_mod: mod_name(item).is_some(), owner }
    }
}

/// What is known of an open brace.
struct Scope {
    is_test: bool,
    is_extra: bool,
    /// Whether it holds what a macro is called with.
    is_macro: bool,
    is_mod: bool,
    owner: Option<String>,
}

fn is_for_tests(attributes: &str) -> bool {
    attributes.contains("cfg(test)") || attributes.contains("cfg(all(test")
}

/// Splits what precedes an item into its attributes and the item itself.
fn split_attributes(header: &str) -> (&str, &str) {
    let mut rest = header.trim_start();
    while rest.starts_with("#[") || rest.starts_with("#![") {
        let mut open = 0usize;
        let end = rest.char_indices().find(|&(_, c)| {
            match c {
                '[' => open += 1,
                ']' => open -= 1,
                _ => {}
            }
            c == ']' && open == 0
        });
        let Some((end, _)) = end else { break };
        rest = rest[end + 1..].trim_start();
    }
    header.split_at(header.len() - rest.len())
}

/// Returns the word behind `keyword`, if that is what the item is.
fn name_after<'a>(item: &'a str, keyword: &str) -> Option<&'a str> {
    const QUALIFIERS: [&str; 6] = ["pub", "const", "unsafe", "async", "extern", "default"];
    let mut words = item.split_whitespace().skip_while(|word| {
        QUALIFIERS.contains(word) || word.starts_with("pub(") || word.starts_with(['"', '['])
    });
    (words.next()? == keyword).then(|| words.next())??.split(|c| !is_ident(c)).next()
}

fn mod_name(item: &str) -> Option<&str> {
    name_after(item, "mod")
}

fn fn_name(item: &str) -> Option<&str> {
    name_after(item, "fn")
}

/// Returns the type of an inherent impl.
fn impl_owner(item: &str) -> Option<String> {
    let rest = item.strip_prefix("impl").filter(|rest| rest.starts_with(['<', ' ']))?;
    if rest.split_whitespace().any(|word| word == "for") {
        return None;
    }
    let rest = if rest.starts_with('<') { &rest[generics_len(rest)..] } else { rest };
    let name = rest.trim_start().split(|c| !is_ident(c) && c != ':' && c != '$').next()?;
    Some(name.rsplit("::").next()?.to_owned())
}

/// Returns the length of the `<...>` at the start of a text.
fn generics_len(text: &str) -> usize {
    let mut open = 0usize;
    for (index, c) in text.char_indices() {
        match c {
            '<' => open += 1,
            '>' if !text[..index].ends_with('-') => open -= 1,
            _ => {}
        }
        if open == 0 {
            return index + 1;
        }
    }
    text.len()
}

pub fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

enum Mode {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

/// Splits a file into lines, and each line into code and comment.
fn split_lines(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut mode = Mode::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let line = lines.last_mut().unwrap();
        if c == '\n' {
            if matches!(mode, Mode::LineComment) {
                mode = Mode::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let len = step(&mut mode, line, &chars[at..]);
        line.raw.extend(&chars[at..][..len]);
        at += len;
    }
    // The last newline ends a line and starts none.
    if lines.last().is_some_and(|line| line.raw.is_empty()) {
        lines.pop();
    }
    lines
}

/// Takes the next characters of the line, at least one, and returns how many.
fn step(mode: &mut Mode, line: &mut Line, rest: &[char]) -> usize {
    let next = rest.get(1).copied();
    match *mode {
        Mode::LineComment => line.comment.push(rest[0]),
        Mode::BlockComment(depth) => {
            let delta = match (rest[0], next) {
                ('/', Some('*')) => depth + 1,
                ('*', Some('/')) => depth - 1,
                _ => {
                    line.comment.push(rest[0]);
                    return 1;
                }
            };
            *mode = if delta == 0 { Mode::Code } else { Mode::BlockComment(delta) };
            return 2;
        }
        Mode::Text => {
            if rest[0] == '\\' && next.is_some_and(|c| c != '\n') {
                return 2;
            }
            if rest[0] == '"' {
                line.code.push('"');
                *mode = Mode::Code;
            }
        }
        Mode::RawText(hashes) => {
            let closing = rest[1..].iter().take_while(|&&c| c == '#').count();
            if rest[0] == '"' && hashes <= closing {
                line.code.push('"');
                *mode = Mode::Code;
                return 1 + hashes;
            }
        }
        Mode::Code => return step_code(mode, line, rest),
    }
    1
}

fn step_code(mode: &mut Mode, line: &mut Line, rest: &[char]) -> usize {
    let next = rest.get(1).copied();
    match (rest[0], next) {
        ('/', Some('/')) => *mode = Mode::LineComment,
        ('/', Some('*')) => *mode = Mode::BlockComment(1),
        ('r', Some('"' | '#')) if !line.code.ends_with(is_ident) || line.code.ends_with('b') => {
            let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                line.code.push('r');
                return 1;
            }
            line.code.push('"');
            *mode = Mode::RawText(hashes);
            return 2 + hashes;
        }
        ('"', _) => {
            line.code.push('"');
            *mode = Mode::Text;
            return 1;
        }
        // A character, not a lifetime.
        ('\'', Some('\\')) => {
            let len = rest.iter().skip(3).position(|&c| c == '\'').map_or(1, |len| len + 4);
            return len.min(rest.len());
        }
        ('\'', Some(_)) if rest.get(2) == Some(&'\'') => return 3,
        (c, _) => {
            line.code.push(c);
            return 1;
        }
    }
    2
}
