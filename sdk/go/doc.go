// Package jetflow runs workflows on NATS JetStream.
package jetflow
