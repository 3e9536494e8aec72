/* The route table, openapi.json, docs/http-api.md and docs/problems.md tell the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "gateway/openapi.h"
#include "gateway/problem.h"
#include "gateway/response.h"
#include "gateway/route.h"

static json_t *load_openapi(void)
{
    json_error_t error;
    json_t *root =
        json_loadb((const char *)openapi_json, openapi_json_size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        fail_msg("openapi.json line %d: %s", error.line, error.text);
    }
    return root;
}

static json_t *at(json_t *root, const char *a, const char *b)
{
    return json_object_get(json_object_get(root, a), b);
}

/* The parameter itself, or what its $ref points to. */
static json_t *resolve(json_t *root, json_t *parameter)
{
    const char *ref = json_string_value(json_object_get(parameter, "$ref"));
    if (ref == NULL) {
        return parameter;
    }
    json_t *found = json_object_get(at(root, "components", "parameters"), strrchr(ref, '/') + 1);
    if (found == NULL) {
        fail_msg("openapi.json: %s leads nowhere", ref);
    }
    return found;
}

static bool has_parameter(json_t *root, json_t *operation, const char *in, const char *name)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(operation, "parameters"), i, p)
    {
        json_t *r = resolve(root, p);
        if (strcmp(json_string_value(json_object_get(r, "in")), in) == 0 &&
            strcmp(json_string_value(json_object_get(r, "name")), name) == 0) {
            return true;
        }
    }
    return false;
}

static size_t count_parameters(json_t *root, json_t *operation, const char *in)
{
    size_t i, n = 0;
    json_t *p;
    json_array_foreach(json_object_get(operation, "parameters"), i, p)
    {
        n += strcmp(json_string_value(json_object_get(resolve(root, p), "in")), in) == 0;
    }
    return n;
}

static unsigned roles_of(json_t *operation)
{
    static const struct {
        const char *name;
        unsigned roles;
    } all[] = {{"anyone",
                ROLE_ANYONE | ROLE_USER | ROLE_VIEWER | ROLE_PAYMENTS | ROLE_BACKEND | ROLE_ADMIN},
               {"user", ROLE_USER},
               {"viewer", ROLE_VIEWER},
               {"payments", ROLE_PAYMENTS},
               {"backend", ROLE_BACKEND},
               {"admin", ROLE_ADMIN}};
    unsigned roles = 0;
    size_t i;
    json_t *role;
    json_array_foreach(json_object_get(operation, "x-roles"), i, role)
    {
        for (size_t r = 0; r < ARRAY_COUNT(all); r++) {
            roles |= strcmp(all[r].name, json_string_value(role)) == 0 ? all[r].roles : 0;
        }
    }
    return roles;
}

static void check_query(json_t *root, json_t *operation, const struct route *r)
{
    char names[128], *save = NULL;
    size_t count = 0;
    snprintf(names, sizeof names, "%s", r->query);
    for (char *n = strtok_r(names, " ", &save); n != NULL; n = strtok_r(NULL, " ", &save)) {
        count++;
        if (!has_parameter(root, operation, "query", n)) {
            fail_msg("openapi.json: %s lacks the query parameter %s", r->pattern, n);
        }
    }
    assert_int_equal(count_parameters(root, operation, "query"), count);
}

static void check_path(json_t *root, json_t *operation, const struct route *r)
{
    size_t count = 0;
    for (const char *p = strchr(r->pattern, '{'); p != NULL; p = strchr(p + 1, '{')) {
        char name[32];
        assert_true(str_copy(name, sizeof name, (struct str){p + 1, (uint32_t)strcspn(p + 1, "}")}));
        count++;
        if (!has_parameter(root, operation, "path", name)) {
            fail_msg("openapi.json: %s lacks the path parameter %s", r->pattern, name);
        }
    }
    assert_int_equal(count_parameters(root, operation, "path"), count);
}

static void test_openapi(void **state)
{
    json_t *root = load_openapi(), *item, *operation;
    const char *path, *method;
    size_t operations = 0;
    (void)state;
    for (size_t i = 0; i < routes_count; i++) {
        const struct route *r = &routes[i];
        char lower[16];
        snprintf(lower, sizeof lower, "%s", llhttp_method_name((llhttp_method_t)r->method));
        for (char *c = lower; *c != '\0'; c++) {
            *c = (char)(*c | 0x20);
        }
        json_t *o = json_object_get(at(root, "paths", r->pattern), lower);
        if (o == NULL) {
            fail_msg("openapi.json lacks %s %s", lower, r->pattern);
        }
        bool body = (r->flags & (ROUTE_BODY | ROUTE_BODY_OPTIONAL)) != 0;
        bool key = (r->flags & (ROUTE_KEY | ROUTE_KEY_OPTIONAL)) != 0;
        bool match = (r->flags & (ROUTE_IF_MATCH | ROUTE_IF_MATCH_OPTIONAL)) != 0;
        check_query(root, o, r);
        check_path(root, o, r);
        assert_int_equal(json_object_get(o, "requestBody") != NULL, body);
        assert_int_equal(has_parameter(root, o, "header", "Idempotency-Key"), key);
        assert_int_equal(has_parameter(root, o, "header", "If-Match"), match);
        assert_int_equal(json_array_size(json_object_get(o, "x-listeners")),
                         r->listeners == (ON_PUBLIC | ON_ADMIN) ? 2 : 1);
        if (roles_of(o) != r->roles) {
            fail_msg("openapi.json: roles of %s %s", lower, r->pattern);
        }
    }
    json_object_foreach(json_object_get(root, "paths"), path, item)
    {
        json_object_foreach(item, method, operation)
        {
            operations++;
        }
    }
    assert_int_equal(operations, routes_count); /* and nothing that is not served */
    json_decref(root);
}

static char *read_doc(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", DOCS, name);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        fail_msg("cannot open %s", path);
    }
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    assert_true(n > 0);
    fclose(f);
    return text;
}

static void test_problems_are_documented(void **state)
{
    char *text = read_doc("problems.md");
    size_t headings = 0;
    (void)state;
    for (int p = PROBLEM_NONE + 1; p < PROBLEM_COUNT; p++) {
        const struct problem_info *info = problem_info((enum problem)p);
        char heading[96], row[160];
        snprintf(heading, sizeof heading, "\n## %s\n", info->slug);
        snprintf(row, sizeof row, "%u `%s`", info->status, info->code);
        const char *section = strstr(text, heading);
        if (section == NULL || strstr(section, row) == NULL) {
            fail_msg("docs/problems.md lacks \"## %s\" with %s", info->slug, row);
            continue; /* never reached; said for the compiler */
        }
        const char *end = strstr(section + 4, "\n## ");
        const char *in = strstr(section, row);
        assert_true(end == NULL || in < end);
        assert_true(strcmp(response_reason(info->status), "Status") != 0);
    }
    for (const char *h = strstr(text, "\n## "); h != NULL; h = strstr(h + 1, "\n## ")) {
        headings++;
    }
    assert_int_equal(headings, PROBLEM_COUNT - 1);
    free(text);
}

static void test_every_refusal_has_a_problem(void **state)
{
    (void)state;
    for (int r = 1; r <= RESULT_MAX; r++) {
        enum problem p = problem_of_result((enum result)r);
        /* The engine's word is the API's word, but for the two that say more over HTTP. */
        const char *code = r == RESULT_INVALID ? "INVALID_REQUEST" : result_code((enum result)r);
        assert_string_equal(problem_info(p)->code, code);
    }
}

static void test_routes_are_documented(void **state)
{
    char *text = read_doc("http-api.md");
    (void)state;
    for (size_t i = 0; i < routes_count; i++) {
        char line[128];
        snprintf(line, sizeof line, "| `%s %s` |",
                 llhttp_method_name((llhttp_method_t)routes[i].method), routes[i].pattern);
        if (strstr(text, line) == NULL) {
            fail_msg("docs/http-api.md has no table row %s", line);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openapi),
        cmocka_unit_test(test_problems_are_documented),
        cmocka_unit_test(test_every_refusal_has_a_problem),
        cmocka_unit_test(test_routes_are_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
