// Package wire is what docs/wire.md says of texts, subjects, records and decisions: pure functions, without any IO.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxNesting is how deep arrays and objects may stand in one another.
const MaxNesting = 100

// parse reads one JSON text; numbers keep their digits. It refuses what no program may have in an input.
func parse(text []byte) (any, error) {
	switch {
	case !json.Valid(text):
		return nil, errors.New("this is no JSON")
	case !utf8.Valid(text):
		return nil, errors.New("this is no UTF-8")
	case hasLoneSurrogate(string(text)):
		return nil, errors.New("a surrogate stands alone, and is no text")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return next(decoder, MaxNesting)
}

// next reads the next value of a valid text. Of equal names the last counts, but all values must be some.
func next(from *json.Decoder, levels int) (any, error) {
	token, err := from.Token()
	if number, is := token.(json.Number); is && strings.ContainsAny(number.String(), ".eE") {
		_, err = number.Float64()
	}
	delim, opens := token.(json.Delim)
	if !opens || err != nil {
		return token, err
	}
	if levels == 0 {
		return nil, fmt.Errorf("more than %d arrays and objects stand in one another", MaxNesting)
	}
	items, members := []any{}, object{}
	for from.More() {
		var name any
		if delim == '{' {
			name, _ = from.Token()
		}
		value, err := next(from, levels-1)
		if err != nil {
			return nil, err
		}
		if text, is := name.(string); is {
			members[text] = value
		} else {
			items = append(items, value)
		}
	}
	_, err = from.Token()
	if delim == '{' {
		return members, err
	}
	return items, err
}

// hasLoneSurrogate tells whether an escape in valid JSON is half a character, which the decoder would replace.
func hasLoneSurrogate(text string) bool {
	unit := func(from string) rune {
		number, _ := strconv.ParseUint(from[1:5], 16, 16)
		return rune(number)
	}
	for {
		_, rest, found := strings.Cut(text, `\`)
		if !found {
			return false
		}
		if text = rest[1:]; rest[0] != 'u' {
			continue
		}
		char := unit(rest)
		if text = rest[5:]; !utf16.IsSurrogate(char) {
			continue
		}
		if !strings.HasPrefix(text, `\u`) || utf16.DecodeRune(char, unit(text[1:])) == unicode.ReplacementChar {
			return true
		}
		text = text[6:]
	}
}

const escapes, escaped = "\"\\/bfnrt", "\"\\/\b\f\n\r\t"

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

// appendDouble appends a finite double as ECMAScript writes it.
func appendDouble(to []byte, double float64) []byte {
	if double == 0 {
		return append(to, '0')
	}
	if size := math.Abs(double); size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(to, double, 'f', -1, 64)
	}
	text := strconv.FormatFloat(double, 'e', -1, 64)
	at := strings.IndexByte(text, 'e')
	exponent := strings.TrimLeft(text[at+2:], "0")
	return fmt.Appendf(to, "%se%c%s", text[:at], text[at+1], exponent)
}
