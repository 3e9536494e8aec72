/* What the two files of the model share. */
#ifndef TESTS_UNIT_ENGINE_MODEL_PARTS_H
#define TESTS_UNIT_ENGINE_MODEL_PARTS_H

#include "tests/unit/engine/model.h"

uint32_t model_slot_take(struct model_slots *s);
void model_slot_give(struct model_slots *s, uint32_t slot);
uint32_t model_order_units(const struct model_order *o);
int model_find_sku(const struct model *m, struct str id);
int model_find_sale(const struct model *m, struct str id);
int model_find_user(struct model *m, struct str id);
int model_find_member(const struct model *m, int sale, int user);
int model_find_order(const struct model *m, uint64_t id);
int model_offer_of(const struct model *m, int sale, int sku);
uint32_t model_live_members(const struct model *m);
void model_user_sync(struct model *m, int user);
int model_member_of(struct model *m, int sale, int user);
int64_t model_room(const struct model *m);
bool model_room_beside_margin(const struct model *m, int64_t events);
struct model_event *model_add_event(struct model *m, enum event_kind kind, int sale, int user);
struct model_event *model_add_order_event(struct model *m, enum event_kind kind, int order);
void model_trim(struct model *m);
int64_t model_retention_end(const struct model *m, int sale, int64_t end);
void model_set_status(struct model *m, int order, enum order_status status);
void model_expire(struct model *m, int order);

#endif
