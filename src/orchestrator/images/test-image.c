/* SPDX-License-Identifier: Apache-2.0 */
/* The store and the images in it, with tiny parts that only look like what they are. */
#include "orchestrator/images/image.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/test.h"
#include "orchestrator/images/build.h"
#include "orchestrator/paths.h"

static char home[64];

static int make_home(void **state)
{
    char data[128];

    (void)snprintf(home, sizeof(home), "/tmp/test-image-XXXXXX");
    if (!mkdtemp(home) || setenv("IRONCLAW_HOME", home, 1) < 0)
        return -1;
    (void)snprintf(data, sizeof(data), "%s/libexec", home);
    if (mkdir(data, 0700) < 0 || setenv("IRONCLAW_LIBEXEC", data, 1) < 0)
        return -1;
    (void)snprintf(data, sizeof(data), "%s/libexec/ironclaw-agent", home);
    return fd_write_file_atomic(AT_FDCWD, data, "agent", 5, 0700);
}

static int remove_home(void **state)
{
    return path_remove_tree(home, NULL);
}

static void write_in(const char *dir, const char *file, const void *data, size_t len)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, file);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, data, len, 0600), 0);
}

static bool exists(const char *object)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/data/images/%s", home, object);
    return access(path, F_OK) == 0;
}

/* Makes the image `name` whose root file system has the byte `salt`. */
/* The digest of an image that something outside of the store needs; NULL: none. */
static const char *test_needed;

static int add_needed(struct strlist *ret, struct ic_error *error)
{
    return test_needed ? strlist_add(ret, test_needed, error) : 0;
}

/* As the public calls do. */
static int remove_image(const char *name, image_unused_fn unused, struct ic_error *error)
{
    int r = image_remove(name, unused, unused ? add_needed : NULL, error);

    store_collect(STORE_IMAGES, add_needed);
    return r;
}

static void make_image(const char *name, char salt)
{
    struct workdir workdir = WORKDIR_NONE;
    struct kernel kernel = {.kind = "debian", .release = "6.1.0", .version = "6.1.0-1", .devices = "acpi"};
    struct manifest manifest = {.recipe_key = BUILD_KEY_IMPORTED, .rootfs_key = BUILD_KEY_IMPORTED};
    Elf64_Ehdr ehdr = {.e_machine = EM_X86_64, .e_type = ET_EXEC};
    struct ic_error error = {0};
    static const uint8_t magic[] = {0xe2, 0xe1, 0xf5, 0xe0};
    uint8_t erofs[2048] = {0};

    kernel.dir = home;
    memcpy(ehdr.e_ident, ELFMAG, SELFMAG);
    ehdr.e_ident[EI_CLASS] = ELFCLASS64;
    write_in(home, "vmlinux", &ehdr, sizeof(ehdr));
    digest_bytes(&ehdr, sizeof(ehdr), kernel.sha256);
    kernel.size_bytes = sizeof(ehdr);
    memcpy(erofs + 1024, magic, sizeof(magic));
    erofs[1500] = (uint8_t)salt;
    assert_int_equal(workdir_make(STORE_IMAGES, &workdir, &error), 0);
    write_in(workdir.path, "rootfs.erofs", erofs, sizeof(erofs));
    assert_int_equal(build_finish(&workdir, name, &kernel, &manifest, NULL, &error), 0);
    workdir_drop(&workdir);
    manifest_deinit(&manifest);
    store_collect(STORE_IMAGES, add_needed);
}

static void digest_of(const char *name, char ret[65])
{
    struct image image = {.lock_fd = -1};

    assert_int_equal(image_open(name, &image, NULL), 0);
    memcpy(ret, image.digest, 65);
    image_deinit(&image);
}

static void the_same_parts_give_the_same_digest(void **state)
{
    char first[65], second[65];

    make_image("one", 'a');
    digest_of("one", first);
    make_image("one", 'b');
    digest_of("one", second);
    assert_string_not_equal(first, second);
    assert_false(exists(first));
    make_image("one", 'a');
    digest_of("one", second);
    assert_string_equal(first, second);
    assert_int_equal(remove_image("one", NULL, NULL), 0);
    assert_false(exists(first));
}

static void images_are_found_by_name_digest_and_prefix(void **state)
{
    struct image image = {.lock_fd = -1};
    struct ic_error error = {0};
    struct ic_image_info *infos = NULL;
    char digest[65], prefix[16];
    size_t count = 0;
    char *json = NULL;

    make_image("two", 'a');
    make_image("two:tag", 'b');
    digest_of("two", digest);
    (void)snprintf(prefix, sizeof(prefix), "%.10s", digest);
    assert_int_equal(image_open(prefix, &image, &error), 0);
    assert_string_equal(image.digest, digest);
    assert_string_equal(image.kernel_devices, "acpi");
    image_deinit(&image);
    assert_int_equal(image_open(digest, &image, &error), 0);
    image_deinit(&image);
    assert_int_equal(image_open("absent", &image, &error), -IC_ERR_NOT_FOUND);
    assert_string_equal(error.message, "no image named 'absent'; 'ironclaw image ls' lists them, 'ironclaw image "
                                       "build base' makes the base image");
    assert_int_equal(image_open("00000000", &image, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(image_open("../names", &image, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(image_open("", &image, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(image_open("0000000000000000000000000000000000000000000000000000000000000000", &image, &error),
            -IC_ERR_NOT_FOUND);
    assert_int_equal(ic_image_list(&infos, &count, &error), 0);
    assert_int_equal(count, 2);
    assert_string_equal(infos[0].name, "two");
    assert_string_equal(infos[1].name, "two:tag");
    assert_string_equal(infos[0].digest, digest);
    free(infos);
    assert_int_equal(ic_image_inspect_json("two", &json, &error), 0);
    assert_non_null(strstr(json, digest));
    free(json);
    assert_int_equal(remove_image(prefix, NULL, &error), 0);
    assert_int_equal(remove_image("two", NULL, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(remove_image("two:tag", NULL, &error), 0);
}

static unsigned asked;
static bool asked_named;

static int in_use(const char *object, const char *name, bool named, struct ic_error *error)
{
    asked++;
    asked_named = named;
    assert_int_equal(strlen(object), 64);
    return ic_fail(error, IC_ERR_STATE, "%s is in use", name);
}

static void what_is_in_use_stays(void **state)
{
    struct ic_error error = {0};
    char digest[65];

    make_image("used", 'a');
    digest_of("used", digest);
    asked = 0;
    assert_int_equal(remove_image(digest, in_use, NULL), -IC_ERR_STATE);
    assert_int_equal(remove_image("used", in_use, &error), -IC_ERR_STATE);
    assert_string_equal(error.message, "used is in use");
    assert_int_equal(asked, 2);
    assert_int_equal(remove_image("absent", in_use, NULL), -IC_ERR_NOT_FOUND);
    assert_int_equal(asked, 2);
    assert_true(asked_named);
    assert_true(exists(digest));
    assert_int_equal(remove_image("used", NULL, NULL), 0);
    assert_false(exists(digest));
}

/* Its name goes to another, or goes; it goes when it is not needed, or is removed by its digest. */
static void what_is_needed_stays_without_a_name(void **state)
{
    struct ic_image_info *infos = NULL;
    struct image image = {.lock_fd = -1};
    char digest[65], other[65];
    size_t count = 0;

    make_image("needed", 'a');
    digest_of("needed", digest);
    test_needed = digest;
    make_image("needed", 'b');
    digest_of("needed", other);
    assert_int_equal(remove_image("needed", NULL, NULL), 0);
    assert_false(exists(other));
    assert_true(exists(digest));
    assert_int_equal(ic_image_list(&infos, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_string_equal(infos[0].name, "");
    assert_string_equal(infos[0].digest, digest);
    assert_true(infos[0].size_bytes > 0);
    free(infos);
    assert_int_equal(image_open(digest, &image, NULL), 0);
    image_deinit(&image);
    assert_int_equal(remove_image(digest, in_use, NULL), -IC_ERR_STATE);
    assert_false(asked_named);
    assert_int_equal(image_open(digest, &image, NULL), 0);
    assert_int_equal(remove_image(digest, NULL, NULL), -IC_ERR_STATE); /* somebody has it open */
    image_deinit(&image);
    assert_int_equal(store_remove_object(STORE_IMAGES, digest, add_needed, NULL), -IC_ERR_STATE);
    assert_int_equal(remove_image(digest, NULL, NULL), 0);
    assert_false(exists(digest));

    make_image("needed", 'a');
    assert_int_equal(store_remove_object(STORE_IMAGES, digest, NULL, NULL), -IC_ERR_STATE); /* it has a name */
    assert_int_equal(remove_image("needed", NULL, NULL), 0);
    assert_true(exists(digest));
    test_needed = NULL;
    store_collect(STORE_IMAGES, add_needed);
    assert_false(exists(digest));
}

static void damaged_parts_are_named(void **state)
{
    struct image image = {.lock_fd = -1};
    struct ic_error error = {0};
    char digest[65], path[256];
    int fd;

    make_image("three", 'a');
    digest_of("three", digest);
    assert_int_equal(ic_image_verify("three", NULL, NULL, &error), 0);
    (void)snprintf(path, sizeof(path), "%s/data/images/%s/rootfs.erofs", home, digest);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 1999), 1);
    assert_int_equal(image_open("three", &image, &error), 0);
    image_deinit(&image);
    assert_int_equal(ic_image_verify("three", NULL, NULL, &error), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "image three: rootfs.erofs is corrupted"));
    assert_int_equal(pwrite(fd, "x", 1, 1024), 1);
    assert_int_equal(image_open("three", &image, &error), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "image three: rootfs.erofs is not an erofs image"));
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(image_open("three", &image, &error), -IC_ERR_CORRUPT);
    assert_string_equal(error.message,
            "image three: rootfs.erofs is truncated (100 of 2048 bytes); import it again with "
            "'ironclaw image import'");
    fd_close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(image_open("three", &image, &error), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "rootfs.erofs is missing"));
    (void)snprintf(path, sizeof(path), "%s/data/images/%s/manifest.json", home, digest);
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, " ", 1), 1);
    fd_close(fd);
    assert_int_equal(image_open("three", &image, &error), -IC_ERR_CORRUPT);
    /* A damaged image is mended by building it again, and can be removed. */
    make_image("three", 'a');
    assert_int_equal(ic_image_verify("three", NULL, NULL, &error), 0);
    assert_int_equal(remove_image("three", NULL, &error), 0);
}

static void an_open_image_stays_until_it_is_closed(void **state)
{
    struct image image = {.lock_fd = -1};
    char digest[65];

    make_image("four", 'a');
    assert_int_equal(image_open("four", &image, NULL), 0);
    memcpy(digest, image.digest, sizeof(digest));
    assert_int_equal(remove_image("four", NULL, NULL), 0);
    assert_true(exists(digest));
    image_deinit(&image);
    /* The next change removes it. */
    make_image("five", 'b');
    assert_false(exists(digest));
    assert_int_equal(remove_image("five", NULL, NULL), 0);
}

static void what_a_killed_build_left_is_removed(void **state)
{
    struct workdir running = WORKDIR_NONE;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/data/images/.tmp-killed", home);
    assert_int_equal(workdir_make(STORE_IMAGES, &running, NULL), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    write_in(path, "rootfs.tar", "x", 1);
    make_image("six", 'a');
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(running.path, F_OK), 0);
    workdir_drop(&running);
    assert_int_equal(remove_image("six", NULL, NULL), 0);
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
    static const char *const targets[] = {"../../../etc", "/etc", "..", "../.lock", "../names/../x", ""};
    struct image image = {.lock_fd = -1};
    char path[256];

    make_image("seven", 'a');
    (void)snprintf(path, sizeof(path), "%s/data/images/names/evil", home);
    for (size_t i = 0; i < ARRAY_SIZE(targets) - 1; i++) {
        assert_int_equal(symlink(targets[i], path), 0);
        assert_true(image_open("evil", &image, NULL) < 0);
        /* Neither does such a name cost other images anything. */
        make_image("eight", 'b');
        assert_int_equal(remove_image("eight", NULL, NULL), 0);
        assert_int_equal(ic_image_verify("seven", NULL, NULL, NULL), 0);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(remove_image("seven", NULL, NULL), 0);
}

/* Where it can't be linked it is copied, also from another kind of file system. */
static void a_part_from_another_file_system_is_copied(void **state)
{
    static const char *const places[] = {"/dev/shm", "/tmp", "/var/tmp"};
    struct ic_error error = {0};
    char from[64], to[256], read_back[8];

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        int fd;

        (void)snprintf(from, sizeof(from), "%s/ironclaw-test-XXXXXX", places[i]);
        (void)snprintf(to, sizeof(to), "%s/copy", home);
        fd = mkstemp(from);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "part", 4), 4);
        fd_close(fd);
        assert_int_equal(store_link_file(from, to, &error), 0);
        fd = open(to, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, read_back, sizeof(read_back)), 4);
        assert_memory_equal(read_back, "part", 4);
        fd_close(fd);
        assert_int_equal(unlink(to), 0);
        assert_int_equal(unlink(from), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(the_same_parts_give_the_same_digest),
            cmocka_unit_test(images_are_found_by_name_digest_and_prefix),
            cmocka_unit_test(what_is_in_use_stays),
            cmocka_unit_test(what_is_needed_stays_without_a_name),
            cmocka_unit_test(damaged_parts_are_named),
            cmocka_unit_test(an_open_image_stays_until_it_is_closed),
            cmocka_unit_test(what_a_killed_build_left_is_removed),
            cmocka_unit_test(names_that_lead_elsewhere_are_refused),
            cmocka_unit_test(a_part_from_another_file_system_is_copied),
    };
    return cmocka_run_group_tests(tests, make_home, remove_home);
}
