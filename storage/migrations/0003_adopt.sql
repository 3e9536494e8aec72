-- A cluster that was restored from a backup takes over the database of the cluster that the backup is of
-- (docs/adr/0013-backups.md). The database has usually seen more than the backup holds: what came after it
-- is set aside, and everything else is put back to where it was at the backup's log index.

-- Rows that no cluster stands behind any more, as they were: for people to settle.
CREATE TABLE holdfast.set_aside (
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    cluster_id   uuid NOT NULL,    -- the cluster that wrote it
    kind         text NOT NULL CHECK (kind IN ('order', 'changed_order', 'order_line', 'payment',
                                               'eligibility', 'event')),
    shard        integer NOT NULL,
    content      jsonb NOT NULL    -- the row
);

-- last_sequence, last_index: of the backup. acked: for each shard, what the backup's cluster knew to be
-- here. One transaction; returns how many rows were set aside of each kind. SQLSTATEs: HF004 the database
-- is not that cluster's, HF002 it lacks events that were acknowledged, HF003 the history of a row is gone.
CREATE FUNCTION holdfast.adopt(old_cluster uuid, new_cluster uuid, last_sequence bigint, last_index bigint,
                               acked bigint[])
RETURNS TABLE (events bigint, orders bigint, changed_orders bigint, payments bigint, eligibilities bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    owner   holdfast.cluster%ROWTYPE;
    touched bigint;
BEGIN
    -- Waits for a transaction of a persister that is under way; every later one of the old cluster fails.
    PERFORM FROM holdfast.watermark w ORDER BY w.shard FOR UPDATE;
    SELECT * INTO owner FROM holdfast.cluster FOR UPDATE;
    IF NOT FOUND OR owner.cluster_id <> old_cluster THEN
        RAISE EXCEPTION 'the database belongs to %, the backup is of cluster %',
            coalesce('cluster ' || owner.cluster_id, 'nobody'), old_cluster USING ERRCODE = 'HF004';
    END IF;
    IF new_cluster = old_cluster THEN
        RAISE EXCEPTION 'cluster % has it already', new_cluster USING ERRCODE = 'HF004';
    END IF;
    IF owner.shards <> cardinality(acked) THEN
        RAISE EXCEPTION 'the database has % shards, the backup %', owner.shards, cardinality(acked)
            USING ERRCODE = 'HF004';
    END IF;
    SELECT count(*) INTO touched FROM generate_series(0, owner.shards - 1) AS s
        LEFT JOIN holdfast.watermark w ON w.shard = s
        WHERE coalesce(w.sequence, 0) < acked[s + 1];
    IF touched > 0 THEN
        RAISE EXCEPTION '% shards lack events that the backup knows to be persisted', touched
            USING ERRCODE = 'HF002';
    END IF;

    -- Orders of before that changed after: back to their last event of before.
    CREATE TEMPORARY TABLE rewound ON COMMIT DROP AS
        SELECT o.id, o.shard, e.type, e.payload, e.log_index, e.created_at
        FROM holdfast.orders o
        LEFT JOIN (SELECT DISTINCT ON (x.shard, x.aggregateid) x.*
                   FROM holdfast.outbox x
                   WHERE x.aggregatetype = 'order' AND x.type LIKE 'order.%' AND x.sequence <= last_sequence
                   ORDER BY x.shard, x.aggregateid, x.sequence DESC) e
            ON e.shard = o.shard AND e.aggregateid = holdfast.order_id_text(o.id)
        WHERE o.created_index <= last_index AND o.changed_index > last_index;
    SELECT count(*) INTO touched FROM rewound WHERE type IS NULL;
    IF touched > 0 THEN
        RAISE EXCEPTION '% orders changed after the backup and their earlier events are gone from the outbox',
            touched USING ERRCODE = 'HF003';
    END IF;
    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'changed_order', o.shard, to_jsonb(o)
        FROM holdfast.orders o JOIN rewound r ON r.id = o.id AND r.shard = o.shard;
    GET DIAGNOSTICS changed_orders = ROW_COUNT;
    UPDATE holdfast.orders o
        SET status = (r.payload ->> 'status')::holdfast.order_status,
            version = (r.payload ->> 'version')::bigint, changed_at = r.created_at,
            changed_index = r.log_index, restocked = (r.payload ->> 'restocked')::boolean,
            reason = CASE WHEN r.type = 'order.refunded' THEN r.payload ->> 'reason' END
        FROM rewound r WHERE r.id = o.id AND r.shard = o.shard;
    DROP TABLE rewound;

    -- Orders of after.
    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'order_line', l.shard, to_jsonb(l)
        FROM holdfast.order_lines l JOIN holdfast.orders o ON o.id = l.order_id AND o.shard = l.shard
        WHERE o.created_index > last_index;
    DELETE FROM holdfast.order_lines l USING holdfast.orders o
        WHERE o.id = l.order_id AND o.shard = l.shard AND o.created_index > last_index;
    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'order', o.shard, to_jsonb(o) FROM holdfast.orders o
        WHERE o.created_index > last_index;
    GET DIAGNOSTICS orders = ROW_COUNT;
    DELETE FROM holdfast.orders o WHERE o.created_index > last_index;

    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'payment', p.shard, to_jsonb(p) FROM holdfast.payments p
        WHERE p.sequence > last_sequence;
    GET DIAGNOSTICS payments = ROW_COUNT;
    DELETE FROM holdfast.payments p WHERE p.sequence > last_sequence;

    -- Eligibilities that changed after: back to their last event of before, or gone.
    CREATE TEMPORARY TABLE rewound ON COMMIT DROP AS
        SELECT g.user_id, g.sale_id, g.shard, e.type, e.sequence, e.log_index, e.created_at
        FROM holdfast.eligibilities g
        LEFT JOIN (SELECT DISTINCT ON (x.shard, x.aggregateid) x.*
                   FROM holdfast.outbox x
                   WHERE x.aggregatetype = 'eligibility' AND x.sequence <= last_sequence
                   ORDER BY x.shard, x.aggregateid, x.sequence DESC) e
            ON e.shard = g.shard AND e.aggregateid = g.sale_id || '/' || g.user_id
        WHERE g.sequence > last_sequence;
    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'eligibility', g.shard, to_jsonb(g) FROM holdfast.eligibilities g
        WHERE g.sequence > last_sequence;
    GET DIAGNOSTICS eligibilities = ROW_COUNT;
    DELETE FROM holdfast.eligibilities g USING rewound r
        WHERE r.type IS NULL AND g.user_id = r.user_id AND g.sale_id = r.sale_id AND g.shard = r.shard;
    UPDATE holdfast.eligibilities g
        SET granted = r.type = 'eligibility.granted', sequence = r.sequence, log_index = r.log_index,
            changed_at = r.created_at
        FROM rewound r
        WHERE r.type IS NOT NULL AND g.user_id = r.user_id AND g.sale_id = r.sale_id AND g.shard = r.shard;
    DROP TABLE rewound;

    INSERT INTO holdfast.set_aside (cluster_id, kind, shard, content)
        SELECT old_cluster, 'event', x.shard, to_jsonb(x) FROM holdfast.outbox x
        WHERE x.sequence > last_sequence;
    GET DIAGNOSTICS events = ROW_COUNT;
    DELETE FROM holdfast.outbox x WHERE x.sequence > last_sequence;

    -- The terms of the new cluster begin where the backup's were: those of later leaders mean nothing to it.
    UPDATE holdfast.watermark w
        SET term = 0, sequence = least(w.sequence, last_sequence), log_index = least(w.log_index, last_index),
            updated_at = now();
    UPDATE holdfast.cluster SET cluster_id = new_cluster;
    RETURN NEXT;
END $$;
