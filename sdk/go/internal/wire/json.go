// Package wire is what docs/wire.md says of texts, subjects, records and decisions: pure functions, without any IO.
package wire

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNesting is how deep arrays and objects may stand in one another.
const MaxNesting = 100

type kind byte

const (
	isNull kind = iota
	isTrue
	isFalse
	isInteger
	isDouble
	isString
	isArray
	isObject
)

// Value is a JSON value as it was read: numbers keep whether they are integers, and all their digits.
type Value struct {
	kind    kind
	text    string // of a string, decoded; of an integer, its digits
	double  float64
	items   []*Value
	members map[string]*Value
}

type parser struct {
	text string
	at   int
}

// Parse reads one JSON text. It refuses what no program may have in an input: lone surrogates, numbers that are no
// finite doubles, and more than MaxNesting levels. Of equal keys the last counts.
func Parse(text []byte) (*Value, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("this is no UTF-8")
	}
	p := &parser{text: string(text)}
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.fault("nothing may stand behind the value")
	}
	return value, nil
}

func (p *parser) fault(what string) error { return fmt.Errorf("%s, at byte %d", what, p.at) }

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) value(depth int) (*Value, error) {
	p.space()
	if p.at >= len(p.text) {
		return nil, p.fault("a value is missing")
	}
	switch c := p.text[p.at]; {
	case c == '{' || c == '[':
		if depth >= MaxNesting {
			return nil, p.fault(fmt.Sprintf("more than %d arrays and objects stand in one another", MaxNesting))
		}
		p.at++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		text, err := p.str()
		return &Value{kind: isString, text: text}, err
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	}
	for word, is := range map[string]kind{"null": isNull, "true": isTrue, "false": isFalse} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return &Value{kind: is}, nil
		}
	}
	return nil, p.fault("this is no JSON value")
}

// next tells whether another item follows, behind a comma, and passes the end if none does.
func (p *parser) next(first bool, end byte) (bool, error) {
	p.space()
	if p.at >= len(p.text) {
		return false, p.fault("the text ends inside an array or object")
	}
	c := p.text[p.at]
	if c == end {
		p.at++
		return false, nil
	}
	if first {
		return true, nil
	}
	if c != ',' {
		return false, p.fault("a comma is missing")
	}
	p.at++
	if p.space(); p.at < len(p.text) && p.text[p.at] == end {
		return false, p.fault("nothing stands behind a comma")
	}
	return true, nil
}

func (p *parser) array(depth int) (*Value, error) {
	made := &Value{kind: isArray}
	for {
		more, err := p.next(len(made.items) == 0, ']')
		if err != nil || !more {
			return made, err
		}
		item, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		made.items = append(made.items, item)
	}
}

func (p *parser) object(depth int) (*Value, error) {
	made := &Value{kind: isObject, members: map[string]*Value{}}
	for first := true; ; first = false {
		more, err := p.next(first, '}')
		if err != nil || !more {
			return made, err
		}
		if p.space(); p.at >= len(p.text) || p.text[p.at] != '"' {
			return nil, p.fault("a key is a string")
		}
		name, err := p.str()
		if err != nil {
			return nil, err
		}
		if p.space(); p.at >= len(p.text) || p.text[p.at] != ':' {
			return nil, p.fault("a colon is missing")
		}
		p.at++
		if made.members[name], err = p.value(depth); err != nil {
			return nil, err
		}
	}
}

func (p *parser) digits() bool {
	from := p.at
	for p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > from
}

func (p *parser) number() (*Value, error) {
	from, whole := p.at, true
	if p.text[p.at] == '-' {
		p.at++
	}
	first := p.at
	if !p.digits() || (p.text[first] == '0' && p.at > first+1) {
		return nil, p.fault("this is no number")
	}
	if p.at < len(p.text) && p.text[p.at] == '.' {
		p.at++
		if whole = false; !p.digits() {
			return nil, p.fault("digits are missing behind the point")
		}
	}
	if p.at < len(p.text) && (p.text[p.at] == 'e' || p.text[p.at] == 'E') {
		p.at++
		if p.at < len(p.text) && (p.text[p.at] == '+' || p.text[p.at] == '-') {
			p.at++
		}
		if whole = false; !p.digits() {
			return nil, p.fault("digits are missing in the exponent")
		}
	}
	text := p.text[from:p.at]
	if whole {
		if text == "-0" {
			text = "0"
		}
		return &Value{kind: isInteger, text: text}, nil
	}
	double, err := finite(text)
	return &Value{kind: isDouble, double: double}, err
}

func finite(text string) (float64, error) {
	double, _ := strconv.ParseFloat(text, 64)
	if math.IsInf(double, 0) {
		return 0, fmt.Errorf("%.40s is no finite double", text)
	}
	return double, nil
}

func (p *parser) str() (string, error) {
	p.at++
	from := p.at
	var made []byte
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			made = append(made, p.text[from:p.at]...)
			p.at++
			return string(made), nil
		case c < 0x20:
			return "", p.fault("a control character in a string must be escaped")
		case c == '\\':
			made = append(made, p.text[from:p.at]...)
			char, err := p.escape()
			if err != nil {
				return "", err
			}
			made = utf8.AppendRune(made, char)
			from = p.at
		default:
			p.at++
		}
	}
	return "", p.fault("a string does not end")
}

const escapes, escaped = "\"\\/bfnrt", "\"\\/\b\f\n\r\t"

func (p *parser) escape() (rune, error) {
	if p.at+1 >= len(p.text) {
		return 0, p.fault("a string does not end")
	}
	if c := p.text[p.at+1]; c != 'u' {
		at := strings.IndexByte(escapes, c)
		if at < 0 {
			return 0, p.fault("there is no such escape")
		}
		p.at += 2
		return rune(escaped[at]), nil
	}
	high, err := p.unit()
	if err != nil || high < 0xD800 || high > 0xDFFF {
		return high, err
	}
	if high < 0xDC00 && strings.HasPrefix(p.text[p.at:], `\u`) {
		low, err := p.unit()
		if err != nil {
			return 0, err
		}
		if low >= 0xDC00 && low <= 0xDFFF {
			return (high-0xD800)<<10 + (low - 0xDC00) + 0x10000, nil
		}
	}
	return 0, p.fault("a surrogate stands alone, and is no text")
}

func (p *parser) unit() (rune, error) {
	if p.at+6 > len(p.text) {
		return 0, p.fault("an escape is cut off")
	}
	unit, err := strconv.ParseUint(p.text[p.at+2:p.at+6], 16, 16)
	if err != nil {
		return 0, p.fault("an escape has four hexadecimal digits")
	}
	p.at += 6
	return rune(unit), nil
}

// AppendString appends a string as RFC 8785 writes it.
func AppendString(to []byte, text string) []byte {
	to = append(to, '"')
	from := 0
	for at := 0; at < len(text); at++ {
		c := text[at]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		to = append(to, text[from:at]...)
		if short := strings.IndexByte(escaped, c); short >= 0 {
			to = append(to, '\\', escapes[short])
		} else {
			to = fmt.Appendf(to, `\u%04x`, c)
		}
		from = at + 1
	}
	return append(append(to, text[from:]...), '"')
}

// AppendDouble appends a finite double as ECMAScript writes it.
func AppendDouble(to []byte, double float64) []byte {
	if double == 0 {
		return append(to, '0')
	}
	if size := math.Abs(double); size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(to, double, 'f', -1, 64)
	}
	text := strconv.FormatFloat(double, 'e', -1, 64)
	at := strings.IndexByte(text, 'e')
	exponent := strings.TrimLeft(text[at+2:], "0")
	return append(append(append(append(to, text[:at]...), 'e'), text[at+1]), exponent...)
}

func sortedNames(members map[string]*Value) []string {
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	sort.Strings(names) // UTF-8 sorts as code points do
	return names
}
