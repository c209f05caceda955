// Program database connects database/sql to a database over bsdnet, with the PostgreSQL driver pgx.
// The database is a small one of this program's (server.go), which speaks PostgreSQL's protocol; to
// the driver it is like any other.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"bsdnet"
	"bsdnet/examples/programs/cable"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	server, client, stop, err := cable.Pair(3)
	if err != nil {
		return err
	}
	defer stop()
	ln, err := server.Listen("tcp", ":5432")
	if err != nil {
		return err
	}
	go serve(ln)
	defer ln.Close()

	db, err := open(client)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return list(ctx, out, db)
}

// open returns a database whose connections are dialled on the stack.
func open(stack *bsdnet.Stack) (*sql.DB, error) {
	config, err := pgx.ParseConfig("postgres://reader@" + cable.Server + ":5432/segments?sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return stack.DialContext(ctx, network, address)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return stdlib.OpenDB(*config), nil
}

// list prints a table of the database.
func list(ctx context.Context, out io.Writer, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "select rfc, title from documents")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var rfc int
		var title string
		if err := rows.Scan(&rfc, &title); err != nil {
			return err
		}
		fmt.Fprintf(out, "RFC %d: %s\n", rfc, title)
	}
	return rows.Err()
}
