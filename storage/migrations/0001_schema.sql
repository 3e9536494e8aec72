-- The schema of holdfast: what the persister writes and everybody else may read.
-- docs/sql-schema.md describes each table; docs/adr/0006-persister.md tells why it looks like this.
--
-- Runs inside one transaction, with the schema and holdfast.schema_migrations in place.

CREATE TYPE holdfast.order_status AS ENUM (
    'pending_payment', 'paid', 'cancelled', 'expired', 'refund_due', 'refunded');

-- Whose rows these are. One row, written by the first persister that comes.
CREATE TABLE holdfast.cluster (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id uuid NOT NULL,
    shards     integer NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Per shard: all its events up to `sequence` are in the tables below, written in the same transactions
-- that moved it. `term` is the fence: only the leader of this term may move it.
CREATE TABLE holdfast.watermark (
    shard      integer PRIMARY KEY,
    term       bigint NOT NULL,
    sequence   bigint NOT NULL,
    log_index  bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 20); -- rewritten in place at every batch: room for HOT updates

CREATE TABLE holdfast.orders (
    id            bigint NOT NULL,
    shard         integer NOT NULL,
    status        holdfast.order_status NOT NULL,
    version       bigint NOT NULL,
    amount        bigint NOT NULL, -- minor units of the currency
    created_at    timestamptz NOT NULL,
    pay_by        timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    created_index bigint NOT NULL, -- log indexes
    changed_index bigint NOT NULL,
    currency      text NOT NULL,
    sale_id       text NOT NULL,
    user_id       text NOT NULL,
    restocked     boolean,         -- of a refund: did the units go back on sale
    reason        text,            -- of a refund
    PRIMARY KEY (id, shard)
) PARTITION BY LIST (shard);
CREATE INDEX orders_user ON holdfast.orders (user_id, id);

CREATE TABLE holdfast.order_lines (
    order_id   bigint NOT NULL,
    shard      integer NOT NULL,
    line       smallint NOT NULL,  -- from 1
    quantity   integer NOT NULL,
    unit_price bigint NOT NULL,    -- minor units of the order's currency
    sku        text NOT NULL,
    PRIMARY KEY (order_id, line, shard)
) PARTITION BY LIST (shard);

CREATE TABLE holdfast.eligibilities (
    shard      integer NOT NULL,
    granted    boolean NOT NULL,
    sequence   bigint NOT NULL,    -- of the event that last changed it
    log_index  bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    sale_id    text NOT NULL,
    user_id    text NOT NULL,
    PRIMARY KEY (user_id, sale_id, shard)
) PARTITION BY LIST (shard);

-- One row for each payment event that had an effect or has to be paid back.
CREATE TABLE holdfast.payments (
    sequence    bigint NOT NULL,
    shard       integer NOT NULL,
    order_id    bigint NOT NULL,
    amount      bigint NOT NULL,   -- minor units, as reported by the payment platform
    log_index   bigint NOT NULL,
    received_at timestamptz NOT NULL,
    currency    text NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('paid', 'refund_due', 'rejected')),
    payment_id  text NOT NULL,     -- the payment platform's event id
    reason      text,              -- of a rejection
    PRIMARY KEY (sequence, shard)
) PARTITION BY LIST (shard);
CREATE INDEX payments_order ON holdfast.payments (order_id);
CREATE INDEX payments_payment ON holdfast.payments (payment_id);

-- The transactional outbox. The first five columns are what Debezium's outbox event router expects by
-- default; sequence orders the events of the whole cluster.
CREATE TABLE holdfast.outbox (
    id            uuid NOT NULL,   -- holdfast.event_id(cluster_id, sequence): stable and unique
    aggregatetype text NOT NULL,   -- 'order' or 'eligibility'
    aggregateid   text NOT NULL,   -- the order id as text, or SALE/USER
    type          text NOT NULL,   -- 'order.placed' and so on
    payload       jsonb NOT NULL,
    shard         integer NOT NULL,
    log_index     bigint NOT NULL,
    sequence      bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (sequence, shard)
) PARTITION BY LIST (shard);
