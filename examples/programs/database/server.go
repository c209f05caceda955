package main

import (
	"net"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
)

// documents is the one table of the database.
var documents = []struct {
	rfc   int
	title string
}{
	{768, "User Datagram Protocol"},
	{791, "Internet Protocol"},
	{9293, "Transmission Control Protocol (TCP)"},
}

// The types of the columns, as PostgreSQL numbers them.
const (
	oidInt4 = 23
	oidText = 25
)

// serve answers the connections of a listener until it is closed.
func serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			converse(c)
		}()
	}
}

// converse lets a client in, and answers each of its queries with the table.
func converse(c net.Conn) error {
	b := pgproto3.NewBackend(c, c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return err
	}
	b.Send(&pgproto3.AuthenticationOk{})
	// The driver quotes the arguments of a simple query only if it knows these two.
	b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if err := b.Flush(); err != nil {
			return err
		}
		message, err := b.Receive()
		if err != nil {
			return err
		}
		switch message := message.(type) {
		case *pgproto3.Query:
			answer(b, message.String)
		case *pgproto3.Terminate:
			return nil
		}
	}
}

// answer sends the result of a query.
func answer(b *pgproto3.Backend, query string) {
	switch query {
	case "select rfc, title from documents":
	case ";", "-- ping": // the driver asks whether the connection is alive
		b.Send(&pgproto3.EmptyQueryResponse{})
		return
	default:
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601", Message: "this database knows one query"})
		return
	}
	b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{
		{Name: []byte("rfc"), DataTypeOID: oidInt4, DataTypeSize: 4, TypeModifier: -1},
		{Name: []byte("title"), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1},
	}})
	for _, d := range documents {
		b.Send(&pgproto3.DataRow{Values: [][]byte{strconv.AppendInt(nil, int64(d.rfc), 10), []byte(d.title)}})
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT " + strconv.Itoa(len(documents)))})
}
