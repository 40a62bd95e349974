// What the page can be told to do: a client of matrix-js-sdk with its Rust crypto, as Element Web begins.
import * as sdk from "matrix-js-sdk";

let client;

function whenPrepared() {
  return new Promise((resolve, reject) => {
    client.on(sdk.ClientEvent.Sync, (state, _previous, data) => {
      if (state === "PREPARED") resolve();
      if (state === "ERROR") reject(data && data.error ? data.error : new Error("sync failed"));
    });
  });
}

function shown(event) {
  return {
    id: event.getId(),
    sender: event.getSender(),
    type: event.getType(),
    content: event.getContent(),
    encrypted: event.isEncrypted(),
    failed: event.isDecryptionFailure(),
    redacted: event.isRedacted(),
  };
}

window.act = {
  async login(url, user, password) {
    const first = sdk.createClient({ baseUrl: url });
    const versions = await first.getVersions();
    const flows = await first.loginFlows();
    const found = await first.loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user },
      password,
      initial_device_display_name: "page",
    });
    client = sdk.createClient({
      baseUrl: url,
      userId: found.user_id,
      deviceId: found.device_id,
      accessToken: found.access_token,
      timelineSupport: true,
    });
    return { user: found.user_id, device: found.device_id, versions: versions.versions, flows: flows.flows };
  },

  // The calls that Element makes at start, beside the sync.
  async start() {
    await client.initRustCrypto({ useIndexedDB: false });
    const prepared = whenPrepared();
    await client.startClient({ lazyLoadMembers: true, initialSyncLimit: 20, threadSupport: true });
    await prepared;
    const answers = await Promise.all([
      client.getCapabilities(),
      client.getPushRules(),
      client.getThirdpartyProtocols(),
      client.turnServer(),
      client.getPushers(),
      client.getDevices(),
      client.getProfileInfo(client.getUserId()),
      client.getCrypto().getKeyBackupInfo(),
      client.publicRooms({ limit: 20 }),
      client.searchUserDirectory({ term: "zzz" }),
      client.getMediaConfig(true),
      client.getJoinedRooms(),
      client.getThreePids(),
    ]);
    return answers.length;
  },

  // Keys that say which devices are one person's, as Element makes them for a new account.
  async crossSign(password) {
    await client.getCrypto().bootstrapCrossSigning({
      setupNewCrossSigning: true,
      authUploadDeviceSigningKeys: async (request) => {
        try {
          return await request(null);
        } catch (error) {
          const identifier = { type: "m.id.user", user: client.getUserId() };
          return request({ type: "m.login.password", identifier, password, session: error.data.session });
        }
      },
    });
    return client.getCrypto().isCrossSigningReady();
  },
  async knows(user) {
    const devices = await client.getCrypto().getUserDeviceInfo([user], true);
    const listed = [...(devices.get(user)?.values() ?? [])];
    const signed = await Promise.all(
      listed.map((d) => client.getCrypto().getDeviceVerificationStatus(user, d.deviceId)),
    );
    return {
      devices: listed.length,
      signed: signed.filter((s) => s && s.signedByOwner).length,
      crossSigned: await client.getCrypto().userHasCrossSigningKeys(user, true),
    };
  },

  // A backup of the keys to rooms, as Element makes it, and what another device gets out of it.
  async backUp() {
    await client.getCrypto().resetKeyBackup();
    await client.getCrypto().checkKeyBackupAndEnable();
    return client.getCrypto().getActiveSessionBackupVersion();
  },
  async backedUp() {
    await client.getCrypto().checkKeyBackupAndEnable();
    const found = await client.getCrypto().getKeyBackupInfo();
    const key = await client.getCrypto().getSessionBackupPrivateKey();
    return { count: found ? found.count : 0, version: found?.version, key: key ? [...key] : null };
  },
  async restore(key, version) {
    await client.getCrypto().storeSessionBackupPrivateKey(new Uint8Array(key), version);
    return client.getCrypto().restoreKeyBackup();
  },

  async create(options) {
    return (await client.createRoom(options)).room_id;
  },
  async join(room, via) {
    return (await client.joinRoom(room, { viaServers: via })).roomId;
  },
  async invite(room, user) {
    await client.invite(room, user);
  },
  async invites() {
    return client.getRooms().filter((r) => r.getMyMembership() === "invite").map((r) => r.roomId);
  },
  async rooms() {
    return client.getRooms().map((r) => ({ id: r.roomId, name: r.name, membership: r.getMyMembership() }));
  },
  async members(room) {
    const found = client.getRoom(room);
    if (!found) return [];
    await found.loadMembersIfNeeded();
    return found.getJoinedMembers().map((m) => m.userId);
  },
  async say(room, body) {
    return (await client.sendTextMessage(room, body)).event_id;
  },
  async send(room, type, content) {
    return (await client.sendEvent(room, type, content)).event_id;
  },
  async redact(room, event) {
    return (await client.redactEvent(room, event)).event_id;
  },
  async events(room) {
    const found = client.getRoom(room);
    if (!found) return [];
    const events = found.getLiveTimeline().getEvents();
    await Promise.all(events.map((e) => client.decryptEventIfNeeded(e)));
    return events.map(shown);
  },
  async back(room, limit) {
    await client.scrollback(client.getRoom(room), limit);
    return act.events(room);
  },
  async typing(room) {
    const found = client.getRoom(room);
    return found ? found.currentState.getMembers().filter((m) => m.typing).map((m) => m.userId) : [];
  },
  async setTyping(room, typing) {
    await client.sendTyping(room, typing, 20000);
  },
  async read(room) {
    const events = client.getRoom(room).getLiveTimeline().getEvents();
    await client.sendReadReceipt(events[events.length - 1]);
  },
  async readers(room, event) {
    const found = client.getRoom(room);
    return found.getUsersReadUpTo(found.findEventById(event));
  },
  async unread(room) {
    return client.getRoom(room).getUnreadNotificationCount();
  },
  async upload(text) {
    const file = new Blob([text], { type: "text/plain" });
    return (await client.uploadContent(file, { name: "note.txt", type: "text/plain" })).content_uri;
  },
  async download(mxc) {
    const url = client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    return answer.ok ? await answer.text() : `error ${answer.status}`;
  },
  async rename(name) {
    await client.setDisplayName(name);
  },
  async stop() {
    client.stopClient();
    await client.logout(true);
  },
};
