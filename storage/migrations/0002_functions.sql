-- The functions of the schema: the same shard and order id arithmetic as proto/, and the writes of the
-- persister that must be refused as a whole when they do not fit.
--
-- SQLSTATEs of our own (class HF): HF001 another leader took the fence, HF002 the watermark is not
-- where the writer believed, HF003 a row that must be there is not.

-- FNV-1a (32 bit) of the id's bytes modulo the shard count: proto/shard.c.
CREATE FUNCTION holdfast.shard(user_id text, shards integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    bytes bytea := convert_to(user_id, 'UTF8');
    hash bigint := 2166136261;
BEGIN
    FOR i IN 0..length(bytes) - 1 LOOP
        hash := ((hash # get_byte(bytes, i)) * 16777619) & 4294967295;
    END LOOP;
    RETURN hash % shards;
END $$;

-- 13 digits of Crockford's base 32: proto/order_id.c.
CREATE FUNCTION holdfast.order_id_text(id bigint) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((id >> (5 * digit)) & 31)::integer + 1, 1), ''
                      ORDER BY digit DESC)
    FROM generate_series(0, 12) AS digit
$$;

-- Its inverse, in either case; NULL when the text is not an order id.
CREATE FUNCTION holdfast.order_id(id_text text) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN upper(id_text) ~ '^[0-7][0-9A-HJKMNP-TV-Z]{12}$' AND id_text <> '0000000000000' THEN
        (SELECT sum((position(substr(upper(id_text), 13 - digit, 1)
                              IN '0123456789ABCDEFGHJKMNPQRSTVWXYZ') - 1)::bigint << (5 * digit))::bigint
         FROM generate_series(0, 12) AS digit)
    END
$$;

-- The id of an event: a UUID of version 8 (RFC 9562) made of 60 bits of the cluster id and the event's
-- sequence, so that ids are unique, stable, and in the order of the events.
CREATE FUNCTION holdfast.event_id(cluster_id uuid, sequence bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (substr(hex, 1, 12) || '8' || substr(hex, 13, 3)
            || lpad(to_hex(sequence & 4611686018427387903 | (-9223372036854775808)), 16, '0'))::uuid
    FROM (SELECT replace(cluster_id::text, '-', '') AS hex) AS c
$$;

-- Creates what shards first..last need, where it is missing. With the owner's rights, so that the
-- persister itself needs no right to create tables.
CREATE FUNCTION holdfast.create_shards(first_shard integer, last_shard integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parent text;
BEGIN
    LOCK TABLE holdfast.watermark IN SHARE ROW EXCLUSIVE MODE; -- one creator at a time
    FOR s IN first_shard..last_shard LOOP
        CONTINUE WHEN EXISTS (SELECT FROM holdfast.watermark w WHERE w.shard = s);
        FOREACH parent IN ARRAY ARRAY['orders', 'order_lines', 'eligibilities', 'payments', 'outbox']
        LOOP
            EXECUTE format('CREATE TABLE holdfast.%I PARTITION OF holdfast.%I FOR VALUES IN (%s)',
                           parent || '_' || to_char(s, 'FM0000'), parent, s);
        END LOOP;
        INSERT INTO holdfast.watermark (shard, term, sequence, log_index) VALUES (s, 0, 0, 0);
    END LOOP;
END $$;

-- Takes the fence for a term: from then on every writer of an older term is refused. Waits for a
-- transaction of theirs that is under way.
CREATE FUNCTION holdfast.take_fence(new_term bigint, shards integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
BEGIN
    PERFORM FROM holdfast.watermark w ORDER BY w.shard FOR UPDATE; -- in one order: no deadlock
    UPDATE holdfast.watermark w SET term = new_term WHERE w.term <= new_term AND w.shard < shards;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> shards THEN
        RAISE EXCEPTION 'fenced: a leader of a later term than % writes here', new_term
            USING ERRCODE = 'HF001';
    END IF;
END $$;

-- Moves watermarks from where the writer knows them to be. The first statement of each of its
-- transactions: it locks the rows, so that the fence of a later leader waits for the end of this
-- transaction, and the transaction fails as a whole when it came too late.
CREATE FUNCTION holdfast.advance(my_term bigint, my_shards integer[], expected bigint[],
                                 new_sequence bigint, new_log_index bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
BEGIN
    UPDATE holdfast.watermark w
        SET sequence = new_sequence, log_index = new_log_index, updated_at = now()
        FROM unnest(my_shards, expected) AS mine(shard, sequence)
        WHERE w.shard = mine.shard AND w.term = my_term AND w.sequence = mine.sequence
          AND w.sequence < new_sequence;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> cardinality(my_shards) THEN
        IF EXISTS (SELECT FROM holdfast.watermark w WHERE w.term > my_term) THEN
            RAISE EXCEPTION 'fenced: term % does not write here any more', my_term USING ERRCODE = 'HF001';
        END IF;
        RAISE EXCEPTION 'watermarks are not where term % left them', my_term USING ERRCODE = 'HF002';
    END IF;
END $$;

-- Changes of orders that are already there, one per order, only ever forward.
CREATE FUNCTION holdfast.change_orders(ids bigint[], shards integer[], statuses holdfast.order_status[],
                                       versions bigint[], times timestamptz[], indexes bigint[],
                                       restocks boolean[], reasons text[]) RETURNS void
LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    touched bigint;
BEGIN
    UPDATE holdfast.orders o
        SET status = c.status, version = c.version, changed_at = c.time, changed_index = c.index,
            restocked = coalesce(c.restocked, o.restocked), reason = coalesce(c.reason, o.reason)
        FROM unnest(ids, shards, statuses, versions, times, indexes, restocks, reasons)
            AS c(id, shard, status, version, time, index, restocked, reason)
        WHERE o.id = c.id AND o.shard = c.shard AND o.version < c.version;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> cardinality(ids) THEN
        RAISE EXCEPTION '% of % orders to change are missing or already newer',
            cardinality(ids) - touched, cardinality(ids) USING ERRCODE = 'HF003';
    END IF;
END $$;

-- Eligibilities as they are now, one per sale and user, only ever forward.
CREATE FUNCTION holdfast.put_eligibilities(sales text[], users text[], shards integer[], grants boolean[],
                                           times timestamptz[], indexes bigint[], sequences bigint[])
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
BEGIN
    INSERT INTO holdfast.eligibilities AS e
            (shard, granted, sequence, log_index, changed_at, sale_id, user_id)
        SELECT c.shard, c.granted, c.sequence, c.index, c.time, c.sale, c.usr
        FROM unnest(sales, users, shards, grants, times, indexes, sequences)
            AS c(sale, usr, shard, granted, time, index, sequence)
        ON CONFLICT (user_id, sale_id, shard) DO UPDATE
            SET granted = excluded.granted, sequence = excluded.sequence,
                log_index = excluded.log_index, changed_at = excluded.changed_at
            WHERE e.sequence < excluded.sequence;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> cardinality(sales) THEN
        RAISE EXCEPTION '% eligibilities are already newer', cardinality(sales) - touched
            USING ERRCODE = 'HF003';
    END IF;
END $$;
