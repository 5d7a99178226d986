package admin

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func sample() *Value {
	v := NewObject("mirror_status")
	p := v.Array("pool_replayers").Object("pool_replayer_status")
	p.String("pool", "rbd")
	p.Bool("leader", true)
	p.Array("instances").String("instance_id", "4130")
	p.Object("sync_throttler").Int("running_requests", 0)
	p.Array("namespaces")
	return v
}

// The expected bytes are those of rbd-mirror 16.2.15.
func TestRender(t *testing.T) {
	for _, c := range []struct {
		format Format
		want   string
	}{
		{JSON, `{"pool_replayers":[{"pool":"rbd","leader":true,"instances":["4130"],"sync_throttler":{"running_requests":0},"namespaces":[]}]}`},
		{JSONPretty, `{
    "pool_replayers": [
        {
            "pool": "rbd",
            "leader": true,
            "instances": [
                "4130"
            ],
            "sync_throttler": {
                "running_requests": 0
            },
            "namespaces": []
        }
    ]
}
`},
		{XML, `<mirror_status><pool_replayers><pool_replayer_status><pool>rbd</pool><leader>true</leader>` +
			`<instances><instance_id>4130</instance_id></instances><sync_throttler><running_requests>0</running_requests></sync_throttler>` +
			`<namespaces></namespaces></pool_replayer_status></pool_replayers></mirror_status>`},
		{XMLPretty, `<mirror_status>
 <pool_replayers>
  <pool_replayer_status>
   <pool>rbd</pool>
   <leader>true</leader>
   <instances>
    <instance_id>4130</instance_id>
   </instances>
   <sync_throttler>
    <running_requests>0</running_requests>
   </sync_throttler>
   <namespaces>
   </namespaces>
  </pool_replayer_status>
 </pool_replayers>
</mirror_status>

`},
	} {
		if got := string(Render(sample(), c.format)); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.format, got, c.want)
		}
	}
	if b := Render(nil, JSONPretty); len(b) != 0 {
		t.Errorf("no answer renders as %q", b)
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]Format{
		"": JSONPretty, "json": JSON, "json-pretty": JSONPretty, "xml": XML, "xml-pretty": XMLPretty, "plain": JSONPretty, "nix": JSONPretty,
	} {
		if got := FormatOf(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestPut(t *testing.T) {
	v := NewObject("o")
	v.String("a", "1")
	v.String("b", "2")
	v.PutString("a", "3")
	v.PutString("c", "4")
	v.Remove(func(name string) bool { return name == "b" })
	if got := string(Render(v, JSON)); got != `{"a":"3","c":"4"}` {
		t.Error(got)
	}
	if v.Member("b") != nil || v.Member("c").Text() != "4" {
		t.Error("members")
	}
}

func TestParseKeepsOrderAndNumbers(t *testing.T) {
	const text = `{"z":1.500000000,"a":[1,"x",true,null,{"k":{}}],"n":18446744073709551615}`
	v, err := Parse("root", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(Render(v, JSON)); got != text {
		t.Error(got)
	}
	for _, bad := range []string{"", "{", `{"a":1}x`, `{"a"}`, "[1,]", strings.Repeat("[", 100) + strings.Repeat("]", 100)} {
		if _, err := Parse("root", []byte(bad)); err == nil {
			t.Errorf("%.20q was parsed", bad)
		}
	}
}

// FuzzRender: whatever is in a value's strings, the renderings can be parsed.
func FuzzRender(f *testing.F) {
	f.Add("rbd/img 1", "a<b>&'\"\\\n\x01\xff\x7f")
	f.Add("", "")
	f.Add("0abc", "￾")
	f.Fuzz(func(t *testing.T, name, text string) {
		v := NewObject("root")
		v.String(name, text)
		v.Array(name).String("e", text)
		for _, format := range []Format{JSON, JSONPretty} {
			var into map[string]any
			if err := json.Unmarshal(Render(v, format), &into); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
		}
		for _, format := range []Format{XML, XMLPretty} {
			d := xml.NewDecoder(strings.NewReader(string(Render(v, format))))
			for {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v in %s", format, err, Render(v, format))
				}
			}
		}
	})
}

// FuzzParse: no input panics, and what is parsed renders to the same value.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,"x",true,null,{"k":{}}]}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse("root", data)
		if err != nil {
			return
		}
		once := Render(v, JSON)
		again, err := Parse("root", once)
		if err != nil {
			t.Fatalf("%v: %s", err, once)
		}
		if twice := Render(again, JSON); string(once) != string(twice) {
			t.Fatalf("%s and then %s", once, twice)
		}
	})
}
