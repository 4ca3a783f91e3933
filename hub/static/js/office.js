/**
 * The pages of technicians and administrators: kiosks, accounts, the audit log. Its own state, since nothing of it
 * concerns the doctor's work, and HTTP alone: no socket, no patient.
 *
 * Hooks for tests: office-tab-kiosks, office-tab-accounts, office-tab-audit; kiosk (data-kiosk, data-online);
 * revoke, revoke-sure, replace; asking (data-kiosk, data-key, data-refused), approve, approve-sure, refuse;
 * invite-site, invite-count, invite-submit, codes, code, sheet, invitation (data-state), withdraw;
 * account (data-name, data-disabled), account-name, account-role, account-add, made, made-password, made-done, reset,
 * reset-sure, disable; code-heard, code-decode, code-meaning; audit-line (data-what), audit-head, audit-older
 *
 * @typedef {{name: string, password: string}} MadePassword
 * @typedef {{for: string, codes: import("./invitations.js").Code[], sheet: string}} MadeCodes `sheet` is a blob's URL
 * @typedef {{me: string, permissions: string[], tab: string, busy: boolean, error: string,
 *   kiosks: import("./kiosks.js").KioskCard[]|null, invitations: import("./invitations.js").InvitationCard[]|null,
 *   heard: import("./selftest.js").CodeHeard|null,
 *   accounts: import("./accounts.js").AccountCard[]|null, made: MadePassword|MadeCodes|null, asked: number|string,
 *   log: {entries: import("./auditlog.js").AuditLine[], head: string, more: boolean}|null}} OfficeState
 */

import { accountsPage } from "./accounts.js";
import { ApiError, get, post } from "./api.js";
import { auditPage } from "./auditlog.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { kiosksPage } from "./kiosks.js";
import { roleLabel } from "./labels.js";

const REFRESH_MS = 10_000;
const TABS = [
  ["kiosks", "see_kiosks", "Kiosks"],
  ["accounts", "manage_accounts", "Accounts"],
  ["audit", "read_audit", "Audit log"],
];

export class Office {
  /** @param {{onChange: () => void, onSignedOut: () => void, onPassword: () => void, signOut: () => void}} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    this.timer = 0;
    this.close();
  }

  /** @param {{name: string, role: string, permissions: string[]}} me */
  open(me) {
    this.state = { ...emptyState(), me: me.name, role: me.role, permissions: me.permissions };
    this.timer = setInterval(() => this.state.tab === "kiosks" && !document.hidden && void this.#fetch(), REFRESH_MS);
    const first = TABS.find(([, needed]) => me.permissions.includes(needed));
    if (first) this.#show(first[0]);
  }

  close() {
    clearInterval(this.timer);
    this.#forgetMade();
    this.state = emptyState();
  }

  /** @param {number} now */
  view(now) {
    const { state } = this;
    const pages = { kiosks: kiosksPage, accounts: accountsPage, audit: auditPage };
    return h(
      "div",
      { class: "work", key: "office" },
      h(
        "header",
        { class: "top-bar", key: "top" },
        h("div", { class: "brand" }, h("span", { class: "brand-mark" }, icon("cross")), h("span", { class: "brand-name" }, roleLabel(state.role))),
        h(
          "nav",
          { class: "tabs office-tabs" },
          TABS.filter(([, needed]) => state.permissions.includes(needed)).map(([name, , text]) =>
            h("button", { class: state.tab === name ? "tab on" : "tab", type: "button", key: name, "aria-current": state.tab === name ? "page" : undefined, onclick: () => this.#show(name), "data-test": `office-tab-${name}` }, text),
          ),
        ),
        h(
          "div",
          { class: "me" },
          h("span", { class: "me-name", title: state.me }, state.me),
          h("button", { class: "plain square", type: "button", "aria-label": "Change your password", title: "Change your password", onclick: this.listeners.onPassword, "data-test": "password-open" }, icon("key")),
          h("button", { class: "plain", type: "button", onclick: this.listeners.signOut, "data-test": "sign-out" }, "Sign out"),
        ),
      ),
      h(
        "div",
        { class: "notices", key: "notices" },
        state.error &&
          h(
            "p",
            { class: "notice problem-notice", role: "alert", "data-test": "notice" },
            icon("alert"),
            h("span", {}, state.error),
            h("button", { class: "plain square", type: "button", "aria-label": "Dismiss", onclick: () => this.#change({ error: "" }) }, icon("close")),
          ),
      ),
      h("main", { class: "office", key: "main" }, state.tab && pages[state.tab](state, this.actions, now)),
    );
  }

  actions = {
    /** @param {{site: string, count: number}|{kiosk: string}} wanted */
    invite: (wanted) =>
      this.#do(async () => {
        const { codes, sheet } = await post("/api/invitations", wanted);
        this.#forgetMade();
        this.#change({ made: { for: wanted.kiosk ? `new hardware of ${wanted.kiosk}` : wanted.site, codes, sheet: pdfUrl(sheet) } });
        await this.#fetch();
      }),

    withdraw: (number) =>
      this.#do(async () => {
        await post(`/api/invitations/${number}/withdraw`);
        await this.#fetch();
      }),

    /** @param {string} kiosk @param {string} key @param {"approve"|"refuse"} what */
    decide: (kiosk, key, what) =>
      this.#do(async () => {
        await post(`/api/kiosks/${kiosk}/${what}`, { key });
        this.#change({ asked: "" });
        await this.#fetch();
      }),

    revoke: (kiosk) =>
      this.#do(async () => {
        await post(`/api/kiosks/${kiosk}/revoke`);
        this.#change({ asked: "" });
        await this.#fetch();
      }),

    decode: (code) =>
      this.#do(async () => {
        this.#change({ heard: null });
        this.#change({ heard: await post("/api/selftest/decode", { code }) });
      }),

    addAccount: (name, role) =>
      this.#do(async () => {
        const { password } = await post("/api/accounts", { name, role });
        this.#change({ made: { name: name.trim(), password } });
        await this.#fetch();
      }),

    ask: (id) => this.#change({ asked: id }),

    resetPassword: (card) =>
      this.#do(async () => {
        const { password } = await post(`/api/accounts/${card.id}/password`);
        this.#change({ made: { name: card.name, password }, asked: 0 });
        await this.#fetch();
      }),

    setRole: (card, role) =>
      this.#do(async () => {
        await post(`/api/accounts/${card.id}/role`, { role });
        await this.#fetch();
      }),

    setDisabled: (card, disabled) =>
      this.#do(async () => {
        await post(`/api/accounts/${card.id}/disabled`, { disabled });
        await this.#fetch();
      }),

    putMadeAway: () => {
      this.#forgetMade();
      this.#change({ made: null });
    },

    olderLog: () =>
      this.#do(async () => {
        const { log } = this.state;
        const older = await get(`/api/audit?before=${log.entries.at(-1).seq}`);
        this.#change({ log: { ...log, entries: [...log.entries, ...older.entries], more: older.more } });
      }),
  };

  #show(tab) {
    this.#forgetMade();
    this.#change({ tab, error: "", asked: 0, heard: null, made: null, log: null });
    void this.#do(() => this.#fetch());
  }

  async #fetch() {
    const { tab } = this.state;
    try {
      if (tab === "kiosks") {
        this.#change({ kiosks: (await get("/api/kiosks")).kiosks });
        if (this.state.permissions.includes("invite_kiosks")) this.#change({ invitations: (await get("/api/invitations")).invitations });
      } else this.#change({ accounts: (await get("/api/accounts")).accounts });
      if (tab === "audit") this.#change({ log: await get("/api/audit") });
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Returns whether it was done. */
  async #do(work) {
    this.#change({ busy: true, error: "" });
    try {
      await work();
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    } finally {
      this.#change({ busy: false });
    }
  }

  #failed(error) {
    if (!(error instanceof ApiError)) console.error(error);
    if (error.status === 401) return this.listeners.onSignedOut();
    this.#change({ error: error instanceof ApiError ? error.message : "Something went wrong in this page. Reload it." });
  }

  #forgetMade() {
    if (this.state?.made?.sheet) URL.revokeObjectURL(this.state.made.sheet);
  }

  #change(part) {
    this.state = { ...this.state, ...part };
    this.listeners.onChange();
  }
}

/** @param {string} base64 */
function pdfUrl(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "application/pdf" }));
}

function emptyState() {
  return {
    me: "", role: "", permissions: [], tab: "", busy: false, error: "",
    kiosks: null, invitations: null, accounts: null, heard: null, made: null, asked: 0, log: null,
  };
}
