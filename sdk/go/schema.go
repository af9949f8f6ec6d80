package jetflow

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"jetflow.dev/go/internal/runs"
)

// Validator is an input or output that tells by itself whether it is one. What it refuses is an InvalidInput.
type Validator interface{ Validate() error }

// encode writes a value as JSON. It refuses text that is no UTF-8, which would become other text.
func encode(value any) (json.RawMessage, error) {
	if raw, is := value.(json.RawMessage); is {
		if raw == nil {
			return json.RawMessage("null"), nil
		}
		if !json.Valid(raw) {
			return nil, errors.New("a json.RawMessage that is no JSON")
		}
		return raw, nil
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
	for at := 0; ; {
		found := bytes.Index(text[at:], []byte(`\ufffd`)) // the encoder writes it for what is no UTF-8 alone
		if found < 0 {
			return text, nil
		}
		at += found
		slashes := at
		for slashes > 0 && text[slashes-1] == '\\' {
			slashes--
		}
		if (at-slashes)%2 == 0 {
			return nil, errors.New("a string in it is no UTF-8")
		}
		at++
	}
}

// decode reads JSON as a type.
func decode[T any](text []byte, kind string) (T, error) {
	var value T
	if len(text) == 0 {
		text = []byte("null")
	}
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) && !nullable(reflect.TypeFor[T]()) {
		return value, runs.Faultf(kind, "null is no %T", value)
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return value, runs.Faultf(kind, "%v", err)
	}
	if check, is := any(&value).(Validator); is {
		if err := check.Validate(); err != nil {
			return value, runs.Faultf(kind, "%v", err)
		}
	}
	return value, nil
}

func nullable(kind reflect.Type) bool {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return true
	case reflect.Struct:
		if kind.NumField() == 0 {
			return true
		}
	}
	return reflect.PointerTo(kind).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// schemas makes the JSON Schema of types: it decides which inputs are one.
type schemas struct {
	defs  map[string]any
	names map[reflect.Type]string
}

// schemaOf returns the JSON Schema of a type.
func schemaOf(kind reflect.Type) json.RawMessage {
	s := &schemas{defs: map[string]any{}, names: map[reflect.Type]string{}}
	made := s.of(kind)
	if len(s.defs) > 0 {
		made["$defs"] = s.defs
	}
	text, err := json.Marshal(made)
	if err != nil {
		return json.RawMessage("{}") // a type says no more than an untyped one then
	}
	return text
}

type schema = map[string]any

// plain are the kinds of types that need no other word.
var plain = map[reflect.Kind]string{
	reflect.Bool: "boolean", reflect.String: "string", reflect.Float32: "number", reflect.Float64: "number",
	reflect.Int: "integer", reflect.Int8: "integer", reflect.Int16: "integer", reflect.Int32: "integer", reflect.Int64: "integer",
	reflect.Uint: "integer", reflect.Uint8: "integer", reflect.Uint16: "integer", reflect.Uint32: "integer", reflect.Uint64: "integer",
}

func (s *schemas) of(kind reflect.Type) schema {
	own := reflect.PointerTo(kind)
	switch {
	case kind == reflect.TypeFor[time.Time]():
		return schema{"type": "string", "format": "date-time"}
	case kind.Kind() == reflect.Pointer:
		return schema{"anyOf": []any{s.of(kind.Elem()), schema{"type": "null"}}}
	case own.Implements(reflect.TypeFor[json.Marshaler]()):
		return schema{} // it writes what it likes
	case own.Implements(reflect.TypeFor[encoding.TextMarshaler]()), kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Uint8:
		return schema{"type": "string"}
	case plain[kind.Kind()] != "":
		return schema{"type": plain[kind.Kind()]}
	}
	switch kind.Kind() {
	case reflect.Slice, reflect.Array:
		return schema{"type": "array", "items": s.of(kind.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.of(kind.Elem())}
	case reflect.Struct:
		return s.object(kind)
	}
	return schema{}
}

func (s *schemas) object(kind reflect.Type) schema {
	name, known := s.names[kind]
	if !known {
		name = kind.Name()
		for number := 2; name == "" || s.defs[name] != nil; number++ {
			name = fmt.Sprintf("%s_%d", kind.Name(), number)
		}
		if strings.ContainsAny(name, "/~[]*. ") { // of a generic type
			name = fmt.Sprintf("Type_%d", len(s.defs)+1)
		}
		s.names[kind] = name
		s.defs[name] = schema{}
		properties, required := schema{}, []string{}
		s.fields(kind, properties, &required)
		s.defs[name] = schema{"type": "object", "properties": properties, "required": required}
	}
	return schema{"$ref": "#/$defs/" + name}
}

// fields adds the fields of a struct. One that is left out when it is empty has its zero value for a default.
func (s *schemas) fields(kind reflect.Type, properties schema, required *[]string) {
	for at := range kind.NumField() {
		field := kind.Field(at)
		tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if field.Anonymous && tag == "" && inner.Kind() == reflect.Struct {
			s.fields(inner, properties, required)
			continue
		}
		if !field.IsExported() || (tag == "-" && options == "") {
			continue
		}
		if tag == "" {
			tag = field.Name
		}
		made := s.of(field.Type)
		if strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
			made["default"] = zero(field.Type)
		} else {
			*required = append(*required, tag)
		}
		properties[tag] = made
	}
}

// zero returns what is left out of a struct for being empty, as a reader in another language has it.
func zero(kind reflect.Type) any {
	switch kind.Kind() {
	case reflect.Slice:
		return []any{}
	case reflect.Map:
		return schema{}
	}
	return reflect.Zero(kind).Interface()
}
