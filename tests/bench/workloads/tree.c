/* tree.c - a binary search tree in an arena: pointers followed, nothing near anything else. */
#include "workload.h"

enum { NODES = 2048 };

struct node {
    uint32_t key, value;
    struct node *left, *right;
};

static struct node nodes[NODES];

static struct node *insert(struct node **at, struct node *fresh) {
    while (*at && (*at)->key != fresh->key)
        at = fresh->key < (*at)->key ? &(*at)->left : &(*at)->right;
    if (!*at) *at = fresh;
    return *at;
}

static uint32_t sum_tree(const struct node *tree, uint32_t sum) {
    if (!tree) return sum;
    sum = sum_tree(tree->left, sum);
    return sum_tree(tree->right, fold(sum, tree->key ^ tree->value));
}

uint32_t workload(uint32_t iterations) {
    uint32_t seed = 17, sum = 0;
    while (iterations--) {
        struct node *root = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            nodes[i] = (struct node){next_random(&seed) & 0xFFFF, i, 0, 0};
            insert(&root, &nodes[i])->value += i;
        }
        sum = sum_tree(root, sum);
    }
    return sum;
}
