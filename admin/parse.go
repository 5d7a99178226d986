package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxDepth bounds the nesting of JSON that is parsed.
const maxDepth = 64

// Parse reads JSON into a value, with the members in their order. The root gets the
// name; an array's elements are named "item", as JSON has no names for them.
func Parse(name string, data []byte) (*Value, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := parse(d, name, 0)
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w", d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("offset %d: something follows the value", d.InputOffset())
	}
	return v, nil
}

func parse(d *json.Decoder, name string, depth int) (*Value, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	v := &Value{name: name}
	switch t := t.(type) {
	case json.Delim:
		v.kind = object
		if t == '[' {
			v.kind = array
		}
		for d.More() {
			key := "item"
			if v.kind == object {
				k, err := d.Token()
				if err != nil {
					return nil, err
				}
				key, _ = k.(string) // the decoder takes nothing else
			}
			m, err := parse(d, key, depth+1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, m)
		}
		_, err = d.Token() // the closing one
		return v, err
	case string:
		v.kind, v.text = quoted, t
	case json.Number:
		v.kind, v.text = plain, t.String()
	case bool:
		v.kind, v.text = plain, strconv.FormatBool(t)
	case nil:
		v.kind, v.text = plain, "null"
	}
	return v, nil
}
