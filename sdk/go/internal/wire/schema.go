package wire

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Schema is what a JSON Schema says of the identity of a value: which numbers are doubles, and which members hold
// their defaults. The zero Schema says nothing. It is safe for concurrent use.
type Schema struct {
	isDouble bool
	objects  []*objectSchema
	arrays   []*arraySchema
}

type member struct {
	place *Schema
	held  *defaultValue
}

type objectSchema struct {
	members map[string]member
	others  *Schema
	tags    map[string][]string // canonical texts
}

type arraySchema struct {
	first  []member
	others *Schema
	isSet  bool
}

// defaultValue is brought into canonical form when it is first asked for, since schemas may contain themselves.
type defaultValue struct {
	place *Schema
	value *Value
	state *sync.Mutex // of the whole schema
	text  []byte
	asked bool
}

var anything = &Schema{}

// ParseSchema reads a JSON Schema; an empty text says nothing.
func ParseSchema(text []byte) (*Schema, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return anything, nil
	}
	value, err := Parse(text)
	if err != nil {
		return nil, err
	}
	c := &compiler{root: value, objects: map[*Value]*objectSchema{}, arrays: map[*Value]*arraySchema{}}
	return c.place(value), nil
}

type compiler struct {
	root    *Value
	objects map[*Value]*objectSchema
	arrays  map[*Value]*arraySchema
	lock    sync.Mutex
}

func (v *Value) at(name string) *Value {
	if v == nil || v.kind != isObject {
		return nil
	}
	return v.members[name]
}

func (v *Value) list() []*Value {
	if v == nil || v.kind != isArray {
		return nil
	}
	return v.items
}

// plain appends the schemas that a value may be of: references and choices are followed.
func (c *compiler) plain(schema *Value, inside []string, to []*Value) []*Value {
	if ref := schema.at("$ref"); ref != nil && ref.kind == isString {
		if slices.Contains(inside, ref.text) {
			return to
		}
		target := c.root.at("$defs").at(strings.TrimPrefix(ref.text, "#/$defs/"))
		return c.plain(target, append(slices.Clip(inside), ref.text), to)
	}
	choices := schema.at("anyOf").list()
	if len(choices) == 0 {
		choices = schema.at("oneOf").list()
	}
	if both := schema.at("allOf").list(); len(choices) == 0 && len(both) == 1 {
		choices = both
	}
	if len(choices) == 0 {
		return append(to, schema)
	}
	for _, choice := range choices {
		to = c.plain(choice, inside, to)
	}
	return to
}

// kinds returns the types that a plain schema leaves, and whether it says anything.
func kinds(schema *Value) (types []string, said bool) {
	switch kind := schema.at("type"); {
	case kind != nil && kind.kind == isString:
		return []string{kind.text}, true
	case kind != nil && kind.kind == isArray:
		for _, one := range kind.items {
			types = append(types, one.text)
		}
		return types, true
	}
	return nil, schema.at("enum") != nil || schema.at("const") != nil
}

func (c *compiler) place(schema *Value) *Schema {
	made := &Schema{}
	var all []string
	for _, choice := range c.plain(schema, nil, nil) {
		types, said := kinds(choice)
		if !said {
			return anything
		}
		if slices.Contains(types, "object") {
			made.objects = append(made.objects, c.object(choice))
		}
		if slices.Contains(types, "array") {
			made.arrays = append(made.arrays, c.array(choice))
		}
		all = append(all, types...)
	}
	made.isDouble = slices.Contains(all, "number") && !slices.Contains(all, "integer")
	return made
}

func (c *compiler) object(schema *Value) *objectSchema {
	if found := c.objects[schema]; found != nil {
		return found
	}
	made := &objectSchema{members: map[string]member{}, tags: map[string][]string{}, others: anything}
	c.objects[schema] = made // before its inside, which may be of the same schema
	if others := schema.at("additionalProperties"); others != nil {
		made.others = c.place(others)
	}
	properties := schema.at("properties")
	if properties == nil || properties.kind != isObject {
		return made
	}
	for name, inner := range properties.members {
		made.members[name] = c.member(inner)
		if only := inner.at("const"); only != nil {
			made.tags[name] = []string{string(anything.append(nil, only))}
		} else if some := inner.at("enum"); some != nil {
			made.tags[name] = []string{}
			for _, one := range some.list() {
				made.tags[name] = append(made.tags[name], string(anything.append(nil, one)))
			}
		}
	}
	return made
}

func (c *compiler) array(schema *Value) *arraySchema {
	if found := c.arrays[schema]; found != nil {
		return found
	}
	made := &arraySchema{others: anything}
	c.arrays[schema] = made
	for _, item := range schema.at("prefixItems").list() {
		made.first = append(made.first, c.member(item))
	}
	if items := schema.at("items"); items != nil {
		made.others = c.place(items)
	}
	unique := schema.at("uniqueItems")
	made.isSet = unique != nil && unique.kind == isTrue
	return made
}

func (c *compiler) member(schema *Value) member {
	made := member{place: c.place(schema)}
	if value := schema.at("default"); value != nil {
		made.held = &defaultValue{place: made.place, value: value, state: &c.lock}
	}
	return made
}

// --- writing

// Canonical returns the canonical JSON of a text, by the schema of its workflow's input.
func (s *Schema) Canonical(text []byte) (canonical []byte, err error) {
	value, err := Parse(text)
	if err != nil {
		return nil, err
	}
	defer func() { // an integer that a schema takes for a double may be too large for one
		if fault, is := recover().(tooLarge); is {
			canonical, err = nil, fault.error
		}
	}()
	return s.append(make([]byte, 0, len(text)), value), nil
}

type tooLarge struct{ error }

func (s *Schema) append(to []byte, value *Value) []byte {
	switch value.kind {
	case isNull:
		return append(to, "null"...)
	case isTrue:
		return append(to, "true"...)
	case isFalse:
		return append(to, "false"...)
	case isString:
		return AppendString(to, value.text)
	case isDouble:
		return AppendDouble(to, value.double)
	case isInteger:
		if !s.isDouble {
			return append(to, value.text...)
		}
		double, err := finite(value.text)
		if err != nil {
			panic(tooLarge{err})
		}
		return AppendDouble(to, double)
	case isArray:
		if len(s.arrays) == 1 {
			return s.arrays[0].append(to, value.items)
		}
		return (&arraySchema{others: anything}).append(to, value.items)
	}
	return s.appendObject(to, value)
}

func (s *Schema) appendObject(to []byte, value *Value) []byte {
	if len(s.objects) == 1 {
		return s.objects[0].append(to, value, false)
	}
	var fitting []*objectSchema
	for _, one := range s.objects {
		if one.fits(value) {
			fitting = append(fitting, one)
		}
	}
	if len(fitting) == 1 {
		return fitting[0].append(to, value, true)
	}
	return (&objectSchema{others: anything}).append(to, value, true)
}

func (o *objectSchema) fits(value *Value) bool {
	for name, texts := range o.tags {
		found := value.members[name]
		if found == nil || !slices.Contains(texts, string(anything.append(nil, found))) {
			return false
		}
	}
	return true
}

func (o *objectSchema) append(to []byte, value *Value, tagged bool) []byte {
	to = append(to, '{')
	from := len(to)
	for _, name := range sortedNames(value.members) {
		found, known := o.members[name]
		if !known {
			found.place = o.others
		}
		before := len(to)
		if before > from {
			to = append(to, ',')
		}
		to = append(AppendString(to, name), ':')
		at := len(to)
		to = found.place.append(to, value.members[name])
		_, isTag := o.tags[name]
		if found.held != nil && !(tagged && isTag) && found.held.is(to[at:]) {
			to = to[:before]
		}
	}
	return append(to, '}')
}

func (a *arraySchema) append(to []byte, items []*Value) []byte {
	texts := make([][]byte, len(items))
	for at, item := range items {
		place := a.others
		if at < len(a.first) {
			place = a.first[at].place
		}
		texts[at] = place.append(nil, item)
	}
	if a.isSet && len(a.first) == 0 {
		sort.Slice(texts, func(i, j int) bool { return bytes.Compare(texts[i], texts[j]) < 0 })
		texts = slices.CompactFunc(texts, bytes.Equal)
	}
	for last := len(texts); 0 < last && last <= len(a.first); last = len(texts) {
		held := a.first[last-1].held
		if held == nil || !held.is(texts[last-1]) {
			break
		}
		texts = texts[:last-1]
	}
	return append(append(append(to, '['), bytes.Join(texts, []byte(","))...), ']')
}

// is tells whether a canonical text is that of the default. A default inside its own value is kept.
func (d *defaultValue) is(text []byte) bool {
	d.state.Lock()
	asked, own := d.asked, d.text
	d.asked = true
	d.state.Unlock()
	if own == nil {
		if asked {
			return false
		}
		own = d.place.append(nil, d.value)
		d.state.Lock()
		d.text = own
		d.state.Unlock()
	}
	return bytes.Equal(own, text)
}
