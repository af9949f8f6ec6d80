package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Hash returns SHA-256 cut to its first 16 bytes, in hexadecimal digits.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// Digest returns the digest of an input by the schema of its workflow's declaration.
func Digest(input []byte, schema *Schema) (string, error) {
	canonical, err := schema.Canonical(input)
	if err != nil {
		return "", err
	}
	return "2-" + Hash(canonical), nil
}

// CheckKey refuses a key that is no text.
func CheckKey(key string) error {
	if !utf8.ValidString(key) {
		return errors.New("a key is UTF-8 text")
	}
	return nil
}

// RootID returns the id of a root run with a key.
func RootID(workflow, key string) string { return Hash([]byte("-\n" + workflow + "\nkey\n" + key)) }

// ChildID returns the id of a child run: by its key, or by its digest where there is none.
func ChildID(parent, workflow string, key *string, digest string) string {
	if key != nil {
		return Hash([]byte(parent + "\n" + workflow + "\nkey\n" + *key))
	}
	return Hash([]byte(parent + "\n" + workflow + "\nhash\n" + digest))
}

// NewID returns a UUIDv7 without dashes.
func NewID() string {
	var id [16]byte
	_, _ = rand.Read(id[6:]) // it never fails
	now := uint64(time.Now().UnixMilli())
	for at := range 6 {
		id[at] = byte(now >> (8 * (5 - at)))
	}
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return hex.EncodeToString(id[:])
}

// ShownKey returns a key as it is shown: one of more than 200 characters is cut.
func ShownKey(key string) string {
	if runes := []rune(key); len(runes) > 200 {
		return string(runes[:199]) + "…"
	}
	return key
}

// OnceToken returns what stands in a subject for the name of a value that a step computes once.
func OnceToken(name string) string {
	if name != "" && len(name) <= 65 && isToken(strings.TrimPrefix(name, "_")) && (len(name) <= 64 || name[0] == '_') {
		return name
	}
	return Hash([]byte(name))
}

// SumOf adds run ids modulo 2^128.
func SumOf(ids iter.Seq[string]) string {
	var high, low, carry uint64
	for id := range ids {
		more, _ := strconv.ParseUint(id[:16], 16, 64)
		less, _ := strconv.ParseUint(id[16:], 16, 64)
		low, carry = bits.Add64(low, less, 0)
		high += more + carry
	}
	return fmt.Sprintf("%016x%016x", high, low)
}

// ChunkSize returns how many bytes of a value travel in a message, where it takes max_payload bytes.
func ChunkSize(maxPayload int64) int { return int(min(256*1024, maxPayload/4)) }

// MaxValue is how many bytes of JSON a value may have.
const MaxValue = 64 << 20

// ValueRef returns the reference of a value, and its chunks.
func ValueRef(value []byte, size int) (ref string, chunks [][]byte) {
	for at := 0; at < len(value); at += size {
		chunks = append(chunks, value[at:min(at+size, len(value))])
	}
	return fmt.Sprintf("%s-%d.%d", Hash(value), size, len(chunks)), chunks
}

// SplitRef takes a reference of a value apart: its name, and its number of chunks.
func SplitRef(ref string) (name string, chunks int, err error) {
	name, count, _ := strings.Cut(ref, ".")
	hash, size, _ := strings.Cut(name, "-")
	chunks, fault := strconv.Atoi(count)
	if _, wrong := strconv.ParseUint(size, 10, 32); wrong != nil || fault != nil || !IsRunID(hash) || chunks < 1 ||
		chunks > MaxValue/1024 {
		return "", 0, fmt.Errorf("%.100q is no reference of a value", ref)
	}
	return name, chunks, nil
}

// IsRunID tells whether a text is a run id.
func IsRunID(text string) bool {
	if len(text) != 32 {
		return false
	}
	for at := range len(text) {
		if c := text[at]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// IsName tells whether a text is the name of a namespace, workflow or step that a user may give.
func IsName(text string) bool { return len(text) <= 64 && isToken(text) }

func isToken(text string) bool {
	for at := range len(text) {
		c := text[at]
		letter := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (at == 0 || c != '_' && c != '-') {
			return false
		}
	}
	return text != ""
}

// isStep tells whether a text is the name of a step, of jetflow's own as well.
func isStep(text string) bool { return IsName(strings.TrimPrefix(text, "_")) }
