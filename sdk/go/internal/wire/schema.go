package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Schema is a JSON Schema, as far as it says which texts are one input: which numbers are doubles, and which members
// hold their defaults. The zero Schema says nothing. It is safe for concurrent use.
type Schema struct{ root any }

// ParseSchema reads a JSON Schema; an empty text says nothing.
func ParseSchema(text []byte) (*Schema, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return &Schema{}, nil
	}
	root, err := parse(text)
	return &Schema{root}, err
}

// Canonical returns the canonical JSON of a text, by the schema of its workflow's input.
func (s *Schema) Canonical(text []byte) ([]byte, error) {
	value, err := parse(text)
	if err != nil {
		return nil, err
	}
	w := writer{root: s.root, inside: map[uintptr]bool{}}
	canonical := w.append(make([]byte, 0, len(text)), s.root, value)
	return canonical, w.err
}

// writer writes one text. The first number that is none makes its err.
type writer struct {
	root   any
	inside map[uintptr]bool // members whose defaults are being written: a default inside its own value is kept
	err    error
}

type object = map[string]any

func array(of any) []any {
	items, _ := of.([]any)
	return items
}

// plain appends the schemas that a value may be of: references and choices are followed.
func (w *writer) plain(of any, followed []string, to []object) []object {
	schema, _ := of.(object)
	if ref, is := schema["$ref"].(string); is {
		if slices.Contains(followed, ref) {
			return to
		}
		root, _ := w.root.(object)
		defs, _ := root["$defs"].(object)
		return w.plain(defs[strings.TrimPrefix(ref, "#/$defs/")], append(slices.Clip(followed), ref), to)
	}
	choices := array(schema["anyOf"])
	if len(choices) == 0 {
		choices = array(schema["oneOf"])
	}
	if both := array(schema["allOf"]); len(choices) == 0 && len(both) == 1 {
		choices = both
	}
	if len(choices) == 0 {
		return append(to, schema)
	}
	for _, choice := range choices {
		to = w.plain(choice, followed, to)
	}
	return to
}

// of returns the plain schemas of a type that stand for a place, and whether a number there is a double.
func (w *writer) of(place any, kind string) (found []object, isDouble bool) {
	isInteger := false
	for _, one := range w.plain(place, nil, nil) {
		types := array(one["type"])
		if name, is := one["type"].(string); is {
			types = []any{name}
		} else if types == nil && one["enum"] == nil && !has(one, "const") {
			return nil, false // it says nothing of what is here
		}
		if slices.Contains(types, any(kind)) {
			found = append(found, one)
		}
		isDouble = isDouble || slices.Contains(types, any("number"))
		isInteger = isInteger || slices.Contains(types, any("integer"))
	}
	return found, isDouble && !isInteger
}

func has(in object, name string) bool {
	_, is := in[name]
	return is
}

func (w *writer) append(to []byte, place, value any) []byte {
	switch value := value.(type) {
	case bool:
		return strconv.AppendBool(to, value)
	case string:
		return AppendString(to, value)
	case json.Number:
		return w.number(to, place, value.String())
	case []any:
		return w.array(to, place, value)
	case object:
		return w.object(to, place, value)
	}
	return append(to, "null"...)
}

func (w *writer) number(to []byte, place any, text string) []byte {
	if _, isDouble := w.of(place, "number"); !isDouble && !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			text = "0"
		}
		return append(to, text...)
	}
	number, _ := strconv.ParseFloat(text, 64)
	if math.IsInf(number, 0) {
		w.err = fmt.Errorf("%.40s is no finite double", text)
		return to
	}
	return appendDouble(to, number)
}

func (w *writer) array(to []byte, place any, items []any) []byte {
	var schema object
	if found, _ := w.of(place, "array"); len(found) == 1 {
		schema = found[0]
	}
	first := array(schema["prefixItems"])
	texts := make([][]byte, len(items))
	for at, item := range items {
		inner := schema["items"]
		if at < len(first) {
			inner = first[at]
		}
		texts[at] = w.append(nil, inner, item)
	}
	if schema["uniqueItems"] == true && len(first) == 0 {
		slices.SortFunc(texts, bytes.Compare)
		texts = slices.CompactFunc(texts, bytes.Equal)
	}
	for last := len(texts); 0 < last && last <= len(first) && w.isDefault(first[last-1], texts[last-1]); last-- {
		texts = texts[:last-1]
	}
	return append(append(append(to, '['), bytes.Join(texts, []byte(","))...), ']')
}

func (w *writer) object(to []byte, place any, members object) []byte {
	found, _ := w.of(place, "object")
	tagged := len(found) != 1
	if tagged {
		found = slices.DeleteFunc(found, func(one object) bool { return !w.fits(one, members) })
	}
	var schema object
	if len(found) == 1 {
		schema = found[0]
	}
	properties, _ := schema["properties"].(object)
	to = append(to, '{')
	from := len(to)
	for _, name := range slices.Sorted(maps.Keys(members)) { // UTF-8 sorts as code points do
		inner, known := properties[name]
		if !known {
			inner = schema["additionalProperties"]
		}
		before := len(to)
		if before > from {
			to = append(to, ',')
		}
		to = append(AppendString(to, name), ':')
		at := len(to)
		to = w.append(to, inner, members[name])
		if known && !(tagged && tagOf(inner) != nil) && w.isDefault(inner, to[at:]) {
			to = to[:before]
		}
	}
	return append(to, '}')
}

// tagOf returns the values that a tag may have; nil if a member is none.
func tagOf(member any) []any {
	schema, _ := member.(object)
	if only, is := schema["const"]; is {
		return []any{only}
	}
	return array(schema["enum"])
}

// fits tells whether the tags of a schema are those of an object.
func (w *writer) fits(schema, members object) bool {
	properties, _ := schema["properties"].(object)
	for name, member := range properties {
		some := tagOf(member)
		value, is := members[name]
		same := func(one any) bool { return bytes.Equal(w.append(nil, nil, one), w.append(nil, nil, value)) }
		if some != nil && !(is && slices.ContainsFunc(some, same)) {
			return false
		}
	}
	return true
}

// isDefault tells whether a canonical text is that of the default of a member.
func (w *writer) isDefault(member any, text []byte) bool {
	schema, _ := member.(object)
	value, is := schema["default"]
	self := reflect.ValueOf(schema).Pointer()
	if !is || w.inside[self] {
		return false
	}
	w.inside[self] = true
	own := w.append(nil, member, value)
	delete(w.inside, self)
	return bytes.Equal(own, text)
}
