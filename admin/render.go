package admin

import (
	"fmt"
	"strings"
)

// Format is how an answer is rendered.
type Format string

// The formats.
const (
	JSON       Format = "json"
	JSONPretty Format = "json-pretty"
	XML        Format = "xml"
	XMLPretty  Format = "xml-pretty"
)

// FormatOf is the format of that name; like Ceph's daemons it takes what it does not
// know for json-pretty.
func FormatOf(name string) Format {
	switch f := Format(name); f {
	case JSON, XML, XMLPretty:
		return f
	}
	return JSONPretty
}

// Render renders an answer. nil is no answer: nothing.
func Render(v *Value, f Format) []byte {
	if v == nil {
		return nil
	}
	var b strings.Builder
	switch f {
	case XML:
		writeXML(&b, v, -1)
	case XMLPretty:
		writeXML(&b, v, 0)
		b.WriteByte('\n') // Ceph ends pretty XML with an empty line
	case JSON:
		writeJSON(&b, v, -1)
	default:
		writeJSON(&b, v, 0)
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// writeJSON writes a value without its name. depth is that of indentation, -1 for none.
func writeJSON(b *strings.Builder, v *Value, depth int) {
	switch v.kind {
	case quoted:
		writeJSONString(b, v.text)
		return
	case plain:
		b.WriteString(v.text)
		return
	}
	ends := "{}"
	if v.kind == array {
		ends = "[]"
	}
	b.WriteByte(ends[0])
	for i, m := range v.list {
		if i > 0 {
			b.WriteByte(',')
		}
		inner := depth
		if depth >= 0 {
			inner++
			newLine(b, 4*inner)
		}
		if v.kind == object {
			writeJSONString(b, m.name)
			b.WriteByte(':')
			if depth >= 0 {
				b.WriteByte(' ')
			}
		}
		writeJSON(b, m, inner)
	}
	if depth >= 0 && len(v.list) > 0 {
		newLine(b, 4*depth)
	}
	b.WriteByte(ends[1])
}

func newLine(b *strings.Builder, spaces int) {
	b.WriteByte('\n')
	for range spaces {
		b.WriteByte(' ')
	}
}

// writeJSONString quotes as JSON wants, and no more: < and & stay as they are.
func writeJSONString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s { // bytes that are no UTF-8 become U+FFFD
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// writeXML writes a value as an element. depth is that of indentation, -1 for none.
func writeXML(b *strings.Builder, v *Value, depth int) {
	indent := func() {
		for range depth {
			b.WriteByte(' ')
		}
	}
	end := func() {
		if depth >= 0 {
			b.WriteByte('\n')
		}
	}
	name := xmlName(v.name)
	indent()
	b.WriteString("<" + name + ">")
	if v.kind == object || v.kind == array {
		inner := depth
		if depth >= 0 {
			inner++
		}
		end()
		for _, m := range v.list {
			writeXML(b, m, inner)
		}
		indent()
	} else {
		writeXMLText(b, v.text)
	}
	b.WriteString("</" + name + ">")
	end()
}

// xmlName makes a name that XML allows. Ceph replaces only spaces, so that its counters
// of images ("rbd_mirror_image_rbd/img") cannot be parsed by anybody.
func xmlName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
			return r
		}
		return '_'
	}, s)
	if name == "" || name[0] == '-' || name[0] == '.' || name[0] >= '0' && name[0] <= '9' {
		return "_" + name
	}
	return name
}

func writeXMLText(b *strings.Builder, s string) {
	for _, r := range s {
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '\'':
			b.WriteString("&apos;")
		case r == '"':
			b.WriteString("&quot;")
		case r < 0x20 && r != '\n' && r != '\t' && r != '\r', r == 0xfffe, r == 0xffff:
			b.WriteRune(0xfffd) // XML has no way to say it
		default:
			b.WriteRune(r)
		}
	}
}
