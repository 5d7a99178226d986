package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// Param is a parameter of a command: a string, or one or more strings.
type Param struct {
	Name     string
	Optional bool
	Many     bool
}

// Answer is what a command says: a value to render, or bytes that are sent as they are.
// Neither is an answer, too: empty.
type Answer struct {
	Value *Value
	Raw   []byte
}

// Command is something that can be asked for.
type Command struct {
	Prefix string // the words, separated by one space
	Params []Param
	Help   string // "" keeps it out of "help"
	Run    func(ctx context.Context, args Args) (Answer, error)
}

// Error is a command's failure: an errno and what to say about it.
type Error struct {
	Errno syscall.Errno
	Text  string
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Errno }

// Errorf makes an Error.
func Errorf(errno syscall.Errno, format string, args ...any) error {
	return &Error{errno, fmt.Sprintf(format, args...)}
}

// Strerror is an errno in the words of Ceph: "(22) Invalid argument".
func Strerror(e syscall.Errno) string {
	s := e.Error() // libc's words, in lower case
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	return fmt.Sprintf("(%d) %s", int(e), s)
}

// sortCommands puts commands into the order in which Ceph shows them.
func sortCommands(commands []Command) {
	slices.SortStableFunc(commands, func(a, b Command) int { return cmp.Compare(a.Prefix, b.Prefix) })
}

// descriptions are the signatures that "ceph" matches a user's words against.
func descriptions(commands []Command) *Value {
	v := NewObject("command_descriptions")
	for i, c := range commands {
		d := v.Object(fmt.Sprintf("cmd%03d", i))
		sig := d.Array("sig")
		for word := range strings.FieldsSeq(c.Prefix) {
			sig.String("arg", word)
		}
		for _, p := range c.Params {
			o := sig.Object(p.Name)
			if p.Many {
				o.String("n", "N")
			}
			o.String("name", p.Name)
			if p.Optional {
				o.String("req", "false")
			}
			o.String("type", "CephString")
		}
		d.String("help", c.Help)
	}
	return v
}

// help lists the commands with their explanations.
func help(commands []Command) *Value {
	v := NewObject("help")
	for _, c := range commands {
		if c.Help != "" {
			v.String(c.Prefix, c.Help)
		}
	}
	return v
}

// withHelp adds the commands that are about the commands themselves.
func withHelp(commands []Command) []Command {
	all := slices.Clone(commands)
	all = append(all,
		Command{Prefix: "help", Help: "list available commands", Run: func(context.Context, Args) (Answer, error) {
			return Answer{Value: help(all)}, nil
		}},
		Command{Prefix: "get_command_descriptions", Help: "list available commands", Run: func(context.Context, Args) (Answer, error) {
			return Answer{Value: descriptions(all)}, nil
		}})
	sortCommands(all)
	return all
}

// Execute does a request and makes the reply's bytes. commands are those that can be
// asked for; help and get_command_descriptions are added to them.
func Execute(ctx context.Context, commands []Command, r Request) []byte {
	answer, err := execute(ctx, withHelp(commands), r)
	out := answer.Raw
	if out == nil {
		out = Render(answer.Value, r.Format)
	}
	if err != nil {
		return append(failure(err), out...)
	}
	return out
}

func execute(ctx context.Context, commands []Command, r Request) (answer Answer, err error) {
	defer func() {
		// What a person asks for must not end the daemon.
		if p := recover(); p != nil {
			answer, err = Answer{}, Errorf(syscall.EFAULT, "panic: %v", p)
		}
	}()
	i := slices.IndexFunc(commands, func(c Command) bool { return c.Prefix == r.Prefix })
	if i < 0 {
		return Answer{}, Errorf(syscall.EINVAL, "unknown command prefix %s", r.Prefix)
	}
	for _, p := range commands[i].Params {
		if !p.Optional && len(r.Args[p.Name]) == 0 {
			return Answer{}, Errorf(syscall.EINVAL, "invalid command json")
		}
	}
	return commands[i].Run(ctx, r.Args)
}
