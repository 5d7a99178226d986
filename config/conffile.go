package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// File is a ceph.conf: sections with settings.
type File struct {
	sections map[string]Settings
}

// FileError says where a ceph.conf is wrong.
type FileError struct {
	Path string
	Line int // from 1
	Text string
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text)
}

// ParseFile reads a ceph.conf. path is only for messages.
//
// The format: "[section]" lines and "key = value" lines in them; '#' and ';' begin a
// comment; a backslash at the end of a line joins the next one, and before any other
// character it takes that character literally; a value may stand in single or double
// quotes, and comment characters in them are literal. White space, dashes and
// underscores in keys are the same. Of equal keys in a section, and of equally named
// sections, the later wins key by key.
func ParseFile(path string, data []byte) (*File, error) {
	f := &File{sections: map[string]Settings{}}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var section Settings
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		first := i
		bad := func(format string, args ...any) error {
			return &FileError{Path: path, Line: first + 1, Text: fmt.Sprintf(format, args...)}
		}
		line := strings.TrimSuffix(lines[i], "\r")
		for continued(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimSuffix(lines[i], "\r")
		}
		if !utf8.ValidString(line) {
			return nil, bad("not valid UTF-8")
		}
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			name, err := parseHeading(line)
			if err != nil {
				return nil, bad("%v", err)
			}
			if f.sections[name] == nil {
				f.sections[name] = Settings{}
			}
			section = f.sections[name]
		default:
			key, value, err := parseLine(line)
			if err != nil {
				return nil, bad("%v", err)
			}
			if section == nil {
				return nil, bad("%q is set outside of a section", key)
			}
			section[key] = value
		}
	}
	return f, nil
}

// continued tells whether a line ends in a backslash that is not itself escaped, and
// is not part of a comment.
func continued(line string) bool {
	n := 0
	for n < len(line) && line[len(line)-1-n] == '\\' {
		n++
	}
	if n%2 == 0 {
		return false
	}
	t := strings.TrimSpace(line)
	return t[0] != '#' && t[0] != ';'
}

func parseHeading(line string) (string, error) {
	end := strings.IndexByte(line, ']')
	if end < 0 {
		return "", fmt.Errorf("section name without a closing bracket")
	}
	name := strings.TrimSpace(line[1:end])
	if name == "" {
		return "", fmt.Errorf("empty section name")
	}
	if err := onlyComment(line[end+1:]); err != nil {
		return "", err
	}
	return name, nil
}

func parseLine(line string) (key, value string, err error) {
	key, rest, ok := strings.Cut(line, "=")
	if !ok {
		return "", "", fmt.Errorf("neither a section nor KEY = VALUE")
	}
	if key = Canonical(key); key == "" {
		return "", "", fmt.Errorf("a value without a key")
	}
	if strings.ContainsAny(key, "#;[\"'") {
		return "", "", fmt.Errorf("%q is no key", key)
	}
	rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		value, rest, err = quoted(rest)
		if err != nil {
			return "", "", err
		}
		return key, strings.TrimSpace(value), onlyComment(rest)
	}
	return key, unquoted(rest), nil
}

// quoted reads a value in quotes and returns what follows it.
func quoted(s string) (value, rest string, err error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", fmt.Errorf("value without a closing %c", quote)
}

// unquoted reads a value up to a comment or the end of the line.
func unquoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '#' && s[i] != ';'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return strings.TrimSpace(b.String())
}

func onlyComment(s string) error {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '#' || s[0] == ';' {
		return nil
	}
	return fmt.Errorf("%q is left over at the end of the line", s)
}

// Lookup finds an option in the first of the sections that has it.
func (f *File) Lookup(name string, sections ...string) (string, bool) {
	if f == nil {
		return "", false
	}
	name = Canonical(name)
	for _, s := range sections {
		if v, ok := f.sections[s][name]; ok {
			return v, true
		}
	}
	return "", false
}

// SectionsOf lists the sections that count for an entity, the strongest first.
func SectionsOf(e Entity) []string { return []string{e.String(), e.Type, "global"} }
