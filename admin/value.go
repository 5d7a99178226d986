package admin

import (
	"cmp"
	"slices"
	"strconv"
)

// Value is a node of an answer: an object, an array or a scalar. Every node has a name,
// also an array's element: XML shows it, JSON does not. The root's name is XML's root.
type Value struct {
	name string
	kind kind
	text string // of a scalar
	list []*Value
}

type kind uint8

const (
	object kind = iota + 1
	array
	quoted // a string
	plain  // a number or a truth value
)

// NewObject makes an object, for a root.
func NewObject(name string) *Value { return &Value{name: name, kind: object} }

// NewArray makes an array, for a root.
func NewArray(name string) *Value { return &Value{name: name, kind: array} }

func (v *Value) add(c *Value) *Value {
	if v.kind != object && v.kind != array {
		panic("admin: a scalar has no members")
	}
	v.list = append(v.list, c)
	return c
}

// Object adds an object to an object or array and returns it.
func (v *Value) Object(name string) *Value { return v.add(&Value{name: name, kind: object}) }

// Array adds an array and returns it.
func (v *Value) Array(name string) *Value { return v.add(&Value{name: name, kind: array}) }

// String adds a string.
func (v *Value) String(name, s string) { v.add(&Value{name: name, kind: quoted, text: s}) }

// Int adds a number.
func (v *Value) Int(name string, n int64) {
	v.add(&Value{name: name, kind: plain, text: strconv.FormatInt(n, 10)})
}

// Uint adds a number that is not negative.
func (v *Value) Uint(name string, n uint64) {
	v.add(&Value{name: name, kind: plain, text: strconv.FormatUint(n, 10)})
}

// Seconds adds a duration in seconds with nine places, as Ceph shows counters of time.
func (v *Value) Seconds(name string, s float64) {
	v.add(&Value{name: name, kind: plain, text: strconv.FormatFloat(s, 'f', 9, 64)})
}

// Bool adds a truth value.
func (v *Value) Bool(name string, b bool) {
	v.add(&Value{name: name, kind: plain, text: strconv.FormatBool(b)})
}

// Name is the node's name.
func (v *Value) Name() string { return v.name }

// Text is a scalar's text, unquoted.
func (v *Value) Text() string { return v.text }

// Members are what an object or array contains.
func (v *Value) Members() []*Value { return v.list }

// Member is the first member of that name, or nil.
func (v *Value) Member(name string) *Value {
	if v == nil {
		return nil
	}
	for _, m := range v.list {
		if m.name == name {
			return m
		}
	}
	return nil
}

// Put sets an object's member: in the place of one of the same name, or at the end.
func (v *Value) Put(m *Value) {
	for i, old := range v.list {
		if old.name == m.name {
			v.list[i] = m
			return
		}
	}
	v.add(m)
}

// PutString is Put of a string.
func (v *Value) PutString(name, s string) { v.Put(&Value{name: name, kind: quoted, text: s}) }

// Sort puts an object's members into the order of their names.
func (v *Value) Sort() {
	slices.SortStableFunc(v.list, func(a, b *Value) int { return cmp.Compare(a.name, b.name) })
}

// Remove takes members away.
func (v *Value) Remove(unwanted func(name string) bool) {
	kept := v.list[:0]
	for _, m := range v.list {
		if !unwanted(m.name) {
			kept = append(kept, m)
		}
	}
	v.list = kept
}

// Renamed is the value under another name. Both share their members.
func (v *Value) Renamed(name string) *Value {
	c := *v
	c.name = name
	return &c
}
